package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"sublet.dev/tenant-apiserver/internal/kube"
	"sublet.dev/tenant-apiserver/pki"
)

// goldenPrefixes are all the keys that the golden objects may have. Objects of
// these kinds are equal in every control plane of one version and hold no
// keys, tokens or addresses. Namespaces are not among them: tools take the UID
// of kube-system for a cluster's identity, so each control plane makes its own.
var goldenPrefixes = []string{
	"/registry/apiregistration.k8s.io/apiservices/",
	"/registry/clusterrolebindings/",
	"/registry/clusterroles/",
	"/registry/flowschemas/",
	"/registry/priorityclasses/",
	"/registry/prioritylevelconfigurations/",
	"/registry/rolebindings/",
	"/registry/roles/",
}

// goldenName is the file with the golden objects. Its number is raised when what is in
// it changes for the same version of Kubernetes.
const goldenName = "kubernetes-" + kube.Version + "-2.golden"

// seedOps is how many objects are written in one transaction of an etcd, which takes
// 128 operations as it comes. A file takes all at once.
const seedOps = 100

// documentation is the service range of control planes that nobody uses
// (RFC 5737).
var documentation = netip.MustParsePrefix("192.0.2.0/24")

// goldenMu lets one caller make the golden objects; the others find them.
var goldenMu sync.Mutex

// bootstrap says whether the store has the objects of the linked version's
// bootstrap, or will have once write is through: into a store that is new it writes the
// golden ones, encrypted with the store's own key. What a crash left of that is completed.
// Nobody may read the store meanwhile; write is never nil.
func (s *storage) bootstrap(ctx context.Context, c Config) (done bool, write func(context.Context) error, err error) {
	write = func(context.Context) error { return nil }
	version, err := s.bootstrapped(ctx)
	if err != nil || version != "" || c.GoldenDir == "" || c.Host != nil {
		return version == kube.Version, write, err
	}
	there, isNew, err := s.goldenKeys(ctx)
	if err != nil || !isNew {
		return false, write, err
	}
	golden, err := ensureGolden(ctx, c.GoldenDir)
	if err != nil {
		return false, write, fmt.Errorf("golden objects: %w", err)
	}
	return true, func(ctx context.Context) error {
		if err := s.seed(ctx, golden, there); err != nil {
			return fmt.Errorf("write the golden objects: %w", err)
		}
		return nil
	}, nil
}

// goldenKeys returns the golden keys that the store has; isNew is false if it has
// others than those and our own.
func (s *storage) goldenKeys(ctx context.Context) (there map[string]bool, isNew bool, err error) {
	all, err := s.client().KV.Get(ctx, "", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return nil, false, fmt.Errorf("list the keys: %w", err)
	}
	there = map[string]bool{}
	for _, kv := range all.Kvs {
		key := string(kv.Key)
		if !isGolden(key) && !strings.HasPrefix(key, "/sublet.dev/") {
			return nil, false, nil
		}
		there[key] = true
	}
	return there, true, nil
}

// seed writes the golden objects but those that are there, and with the last of them
// that the store has them.
func (s *storage) seed(ctx context.Context, golden []*mvccpb.KeyValue, there map[string]bool) error {
	most := len(golden) + 1
	if s.file == nil {
		most = seedOps
	}
	var ops []clientv3.Op
	for _, kv := range append(slices.Clip(golden), &mvccpb.KeyValue{Key: []byte(bootstrapKey), Value: []byte(kube.Version)}) {
		if there[string(kv.Key)] {
			continue
		}
		sealed, err := s.seal(ctx, string(kv.Key), kv.Value)
		if err != nil {
			return err
		}
		if ops = append(ops, clientv3.OpPut(string(kv.Key), sealed)); len(ops) < most {
			continue
		}
		if err := s.putAll(ctx, ops); err != nil {
			return err
		}
		ops = nil
	}
	return s.putAll(ctx, ops)
}

// putAll writes in one transaction.
func (s *storage) putAll(ctx context.Context, ops []clientv3.Op) error {
	if len(ops) == 0 {
		return nil
	}
	_, err := s.client().KV.Txn(ctx).Then(ops...).Commit()
	return err
}

// ensureGolden returns the golden objects, making them if need be.
func ensureGolden(ctx context.Context, dir string) ([]*mvccpb.KeyValue, error) {
	goldenMu.Lock()
	defer goldenMu.Unlock()
	path := filepath.Join(dir, goldenName)
	golden, err := readGolden(path)
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errGoldenDamaged) {
		return golden, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp(dir, makingPrefix)
	if err != nil {
		return nil, err
	}
	err = makeGolden(ctx, work, path)
	if err = errors.Join(err, os.RemoveAll(work)); err != nil {
		return nil, err
	}
	return readGolden(path)
}

// errGoldenDamaged is no reason to stop: the objects can be made again.
var errGoldenDamaged = errors.New("the file with the golden objects is damaged")

// readGolden reads what writeGolden wrote: a checksum, and a range of etcd's.
func readGolden(path string) ([]*mvccpb.KeyValue, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(data) < sha256.Size || sha256.Sum256(data[sha256.Size:]) != [sha256.Size]byte(data) {
		return nil, errGoldenDamaged
	}
	var objects pb.RangeResponse
	if err := proto.Unmarshal(data[sha256.Size:], &objects); err != nil {
		return nil, errGoldenDamaged
	}
	for _, kv := range objects.Kvs {
		if !isGolden(string(kv.Key)) {
			return nil, errGoldenDamaged
		}
	}
	return objects.Kvs, nil
}

func writeGolden(path string, objects []*mvccpb.KeyValue) error {
	data, err := proto.Marshal(&pb.RangeResponse{Kvs: objects})
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	return writeFile(path, append(sum[:], data...))
}

// makeGolden bootstraps a control plane in work and keeps its common part.
func makeGolden(ctx context.Context, work, path string) error {
	ca, err := pki.LoadOrCreate(filepath.Join(work, "pki"), "template")
	if err != nil {
		return err
	}
	c := Config{
		Name: "template", PKI: ca, StorePath: filepath.Join(work, "store.db"),
		ServiceCIDR: documentation, throwAway: true,
	}
	st, err := openStorage(ctx, c)
	if err != nil {
		return err
	}
	if err := bootstrapTemplate(ctx, c, st); err != nil {
		return errors.Join(err, st.close())
	}
	objects, err := distil(ctx, st)
	if err == nil {
		err = writeGolden(path, objects)
	}
	return errors.Join(err, st.close())
}

// bootstrapTemplate runs a template instance until its hooks are through.
func bootstrapTemplate(ctx context.Context, c Config, st *storage) error {
	options := c.options(st, false)
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
	err = s.waitReady(ctx, instance.AggregateRoles)
	return errors.Join(err, s.Stop(context.WithoutCancel(ctx)))
}

// distil returns the golden objects of a store.
func distil(ctx context.Context, st *storage) ([]*mvccpb.KeyValue, error) {
	var objects []*mvccpb.KeyValue
	for _, prefix := range goldenPrefixes {
		r, err := st.client().KV.Get(ctx, prefix, clientv3.WithPrefix())
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", prefix, err)
		}
		if len(r.Kvs) == 0 {
			return nil, fmt.Errorf("nothing is kept below %s, as it was in Kubernetes %s: review goldenPrefixes", prefix, kube.Version)
		}
		for _, kv := range r.Kvs {
			objects = append(objects, &mvccpb.KeyValue{Key: kv.Key, Value: kv.Value})
		}
	}
	return objects, nil
}

func isGolden(key string) bool {
	for _, prefix := range goldenPrefixes {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

// writeFile makes a file of mode 0600, completely or not at all.
func writeFile(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
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
