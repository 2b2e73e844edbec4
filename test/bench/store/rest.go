package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/prometheus/procfs"
	"go.etcd.io/etcd/client/v3/kubernetes"

	"sublet.dev/tenant-apiserver/etcdclient"
	"sublet.dev/tenant-apiserver/store"
)

const (
	idleStores  = 100
	idleObjects = 300
	idleFor     = 10 * time.Second // without a request, to be called idle
	bigFile     = 1 << 30
)

// fillStores makes 100 files of 300 objects, fast.
func fillStores(ctx context.Context, t task) ([]phase, error) {
	for i := range idleStores {
		path := storeOf(t, i)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, err
		}
		if err := fillStore(ctx, path, t.Size, idleObjects); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func storeOf(t task, i int) string { return filepath.Join(t.Target, fmt.Sprint(i), "store.db") }

// fillStore makes a store of n values.
func fillStore(ctx context.Context, path string, size, n int) error {
	s, err := store.Open(path, store.Options{NoSync: true})
	if err != nil {
		return err
	}
	return errors.Join(put(ctx, s, size, n), s.Close())
}

// put writes n values, a hundred at a time.
func put(ctx context.Context, s *store.Store, size, n int) error {
	value := randomValue(size, 1)
	for i := 0; i < n; {
		var ops []store.Op
		for ; len(ops) < 100 && i < n; i++ {
			ops = append(ops, store.Op{Put: &store.Put{Key: fmt.Appendf(nil, "%sns-00/object-%07d", objects, i), Value: value}})
		}
		if _, err := s.Txn(ctx, store.Txn{Then: ops}); err != nil {
			return err
		}
	}
	return nil
}

// idle is what each of 100 open stores adds to a process's anonymous memory: just
// opened, and some time after all its objects were written once more.
func idle(ctx context.Context, t task) (phases []phase, err error) {
	none, err := settled()
	if err != nil {
		return nil, err
	}
	var clients []*kubernetes.Client
	var stores []*store.Store
	for i := range idleStores {
		s, err := store.Open(storeOf(t, i), store.Options{})
		if err != nil {
			return nil, err
		}
		defer s.Close()
		stores, clients = append(stores, s), append(clients, etcdclient.New(s))
	}
	opened, err := settled()
	if err != nil {
		return nil, err
	}
	for _, s := range stores {
		if err := put(ctx, s, t.Size, idleObjects); err != nil {
			return nil, err
		}
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(idleFor):
	}
	used, err := settled()
	for _, c := range clients {
		c.Close()
	}
	return []phase{
		{Name: "idle", Value: (opened - none) / idleStores, Unit: "MiB"},
		{Name: "idle-used", Value: (used - none) / idleStores, Unit: "MiB"},
	}, err
}

// settled is this process's anonymous memory once the garbage has gone.
func settled() (float64, error) {
	for range 2 { // finalizers run after the first
		runtime.GC()
		debug.FreeOSMemory()
	}
	return anonymous(os.Getpid())
}

// anonymous is a process's anonymous memory in MiB.
func anonymous(pid int) (float64, error) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return 0, err
	}
	all, err := p.ProcSMapsRollup()
	return float64(all.Anonymous) / (1 << 20), err
}

// open is how long a file of 1 GiB takes until the first read is answered. The
// file has just been written: what fits into the page cache is in it.
func open(ctx context.Context, t task) ([]phase, error) {
	if t.Server == 0 {
		if err := fillStore(ctx, t.Target, t.Size, bigFile/t.Size); err != nil {
			return nil, err
		}
	}
	began := time.Now()
	c, closing, err := t.connect()
	if err != nil {
		return nil, err
	}
	if _, err := c.Kubernetes.Get(ctx, objects+"ns-00/object-0000001", kubernetes.GetOptions{}); err != nil {
		return nil, err
	}
	took := time.Since(began)
	size, err := sizeOf(t.Dir)
	if err != nil {
		return nil, err
	}
	return []phase{
		{Name: "open", Value: took.Seconds(), Unit: "s"},
		{Name: "open/size", Value: size, Unit: "MiB"},
	}, closing()
}

// sizeOf is what the files below a folder take on disk, in MiB.
func sizeOf(dir string) (float64, error) {
	total := int64(0)
	err := filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	})
	return float64(total) / (1 << 20), err
}
