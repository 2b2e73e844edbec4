package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"

	"sublet.dev/tenant-apiserver/internal/kube"
	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/tenant-apiserver/store"
)

// goldenPrefixes are all the keys that a golden store may have. Objects of
// these kinds are equal in every control plane of one version and hold no
// keys, tokens or addresses. Namespaces are not among them: tools take the UID
// of kube-system for a cluster's identity, so each control plane makes its own.
var goldenPrefixes = []string{
	"/registry/clusterrolebindings/",
	"/registry/clusterroles/",
	"/registry/flowschemas/",
	"/registry/priorityclasses/",
	"/registry/prioritylevelconfigurations/",
	"/registry/rolebindings/",
	"/registry/roles/",
}

// documentation is the service range of control planes that nobody uses
// (RFC 5737).
var documentation = netip.MustParsePrefix("192.0.2.0/24")

// goldenMu lets one caller make the golden store; the others find it.
var goldenMu sync.Mutex

// newStoreFromGolden puts a copy of the golden store where c's store is to be,
// unless there is one already, or c does not want it.
func newStoreFromGolden(ctx context.Context, c Config) error {
	if c.GoldenDir == "" || c.Host != nil {
		return nil
	}
	_, err := os.Stat(c.StorePath)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	golden, err := ensureGolden(ctx, c.GoldenDir)
	if err != nil {
		return fmt.Errorf("golden store: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(c.StorePath), 0o700); err != nil {
		return fmt.Errorf("new store: %w", err)
	}
	if err := copyFile(golden, c.StorePath); err != nil {
		return fmt.Errorf("new store: %w", err)
	}
	return nil
}

// ensureGolden returns the golden store's path, making it if need be.
func ensureGolden(ctx context.Context, dir string) (string, error) {
	goldenMu.Lock()
	defer goldenMu.Unlock()
	path := filepath.Join(dir, "kubernetes-"+kube.Version+".db")
	_, err := os.Stat(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return path, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(dir, makingPrefix)
	if err != nil {
		return "", err
	}
	err = makeGolden(ctx, work, path)
	return path, errors.Join(err, os.RemoveAll(work))
}

// makeGolden bootstraps a control plane in work and keeps its common part.
func makeGolden(ctx context.Context, work, path string) error {
	ca, err := pki.LoadOrCreate(filepath.Join(work, "pki"), "template")
	if err != nil {
		return err
	}
	c := Config{
		Name: "template", PKI: ca, StorePath: filepath.Join(work, "store.db"),
		ServiceCIDR: documentation,
	}
	// Without an ID: each copy gets its tenant's.
	st, err := openStorage(c.Name, c.StorePath, store.Options{NoSync: true})
	if err != nil {
		return err
	}
	if err := bootstrapTemplate(ctx, c, st); err != nil {
		return errors.Join(err, st.close())
	}
	err = distil(ctx, st)
	if err == nil {
		err = st.markBootstrapped(ctx)
	}
	if err == nil {
		// A backup leaves out the room that a store reserves for growing.
		err = writeFile(path, func(w io.Writer) error {
			_, err := st.store.WriteTo(w)
			return err
		})
	}
	return errors.Join(err, st.close())
}

// bootstrapTemplate runs a template instance until its hooks are through.
func bootstrapTemplate(ctx context.Context, c Config, st *storage) error {
	options := c.options(st.endpoint, false)
	options.Template = true
	instance, err := kube.New(ctx, options)
	if err != nil {
		return err
	}
	s := newServer(ctx, c, instance, &servingCert{config: c})
	go func() {
		defer close(s.done)
		s.err = instance.Run(s.life)
	}()
	err = s.waitReady(ctx, func(context.Context) error { return nil })
	return errors.Join(err, s.Stop(context.WithoutCancel(ctx)))
}

// distil removes every key but the golden ones, and their history.
func distil(ctx context.Context, st *storage) error {
	c := st.client()
	all, err := c.KV.Get(ctx, "", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return fmt.Errorf("list keys: %w", err)
	}
	for _, kv := range all.Kvs {
		if isGolden(string(kv.Key)) {
			continue
		}
		if _, err := c.KV.Delete(ctx, string(kv.Key)); err != nil {
			return fmt.Errorf("delete %s: %w", kv.Key, err)
		}
	}
	if _, err := st.store.Compact(ctx, all.Header.Revision); err != nil {
		return fmt.Errorf("compact: %w", err)
	}
	return nil
}

func isGolden(key string) bool {
	for _, prefix := range goldenPrefixes {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

// copyFile copies a file so that to either does not exist or is complete and
// on disk.
func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	return writeFile(to, func(w io.Writer) error {
		_, err := io.Copy(w, in)
		return err
	})
}

// writeFile makes a file of mode 0600 with what write writes, completely or
// not at all.
func writeFile(path string, write func(io.Writer) error) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	err = write(tmp)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
