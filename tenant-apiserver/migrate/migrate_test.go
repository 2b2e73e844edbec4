package migrate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.uber.org/zap"

	"sublet.dev/tenant-apiserver/etcdclient"
	"sublet.dev/tenant-apiserver/store"
	"sublet.dev/tenant-apiserver/store/backup"
)

// realEtcd starts an etcd of one member that ends with the test.
func realEtcd(t *testing.T) *clientv3.Client {
	t.Helper()
	program, err := filepath.Abs("../../bin/peers/etcd")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); err != nil {
		t.Skip("there is no etcd to test with: run `make peers`")
	}
	host := fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254)) // where nobody else listens or connects from
	var at [2]string
	for i := range at {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Fatal(err)
		}
		at[i] = "http://" + l.Addr().String()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, "--name", "m", "--data-dir", t.TempDir(), "--log-level", "error",
		"--listen-client-urls", at[0], "--advertise-client-urls", at[0],
		"--listen-peer-urls", at[1], "--initial-advertise-peer-urls", at[1], "--initial-cluster", "m="+at[1])
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: at[:1], Logger: zap.NewNop(), DialTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if _, err := c.Get(t.Context(), "ready?"); err != nil {
		t.Fatal(err)
	}
	return c
}

func below(c *clientv3.Client, prefix string) Side {
	return Side{KV: namespace.NewKV(c.KV, prefix), Lease: namespace.NewLease(c.Lease, prefix)}
}

// own is our own etcd client over a new store.
func own(t *testing.T) Side {
	t.Helper()
	s := newStore(t, filepath.Join(t.TempDir(), "other.db"), "")
	c := etcdclient.New(s)
	t.Cleanup(func() { _ = c.Close() })
	return Side{KV: c.KV, Lease: c.Lease}
}

func newStore(t *testing.T, path, id string) *store.Store {
	t.Helper()
	s, err := store.Open(path, store.Options{ID: id, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// filled is a store with a thousand keys, one of them on a lease, and history.
func filled(t *testing.T) *store.Store {
	t.Helper()
	s := newStore(t, filepath.Join(t.TempDir(), "store.db"), "acme")
	if _, err := s.Grant(t.Context(), 77, 3600); err != nil {
		t.Fatal(err)
	}
	for i := range 1500 {
		p := &store.Put{Key: fmt.Appendf(nil, "/registry/pods/ns/%04d", i%1000), Value: []byte(strings.Repeat("v", i))}
		if i == 7 {
			p.Key, p.Lease = []byte("/registry/events/x"), 77
		}
		if _, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{{Put: p}}}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func taken(t *testing.T, s backup.Source) (*backup.Reader, []byte) {
	t.Helper()
	var b bytes.Buffer
	if _, _, err := backup.Take(t.Context(), s, &b, backup.Options{}); err != nil {
		t.Fatal(err)
	}
	r, err := backup.NewReader(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	return r, b.Bytes()
}

// values is what a backup holds, as text.
func values(t *testing.T, data []byte) map[string]string {
	t.Helper()
	r, err := backup.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for {
		_, e, err := r.Next()
		if err != nil {
			if len(out) == 0 {
				t.Fatal(err)
			}
			return out
		}
		if e != nil {
			out[string(e.Key)] = string(e.Value)
		}
	}
}

// TestThereAndBack moves a cluster to an etcd and back into a file: a real etcd
// below a prefix, with others' keys around, and our own.
func TestThereAndBack(t *testing.T) {
	sides := map[string]func(t *testing.T) Side{
		"our own": own,
		"etcd": func(t *testing.T) Side {
			c := realEtcd(t)
			for _, k := range []string{"/sublet/acmd/x", "/sublet/acmf/x", "/z"} {
				if _, err := c.Put(t.Context(), k, "another's"); err != nil {
					t.Fatal(err)
				}
			}
			return below(c, "/sublet/acme/")
		},
	}
	for name, make := range sides {
		t.Run(name, func(t *testing.T) {
			to := make(t)
			s := filled(t)
			r, data := taken(t, s)
			want := values(t, data)
			res, err := Load(t.Context(), r, to, nil)
			if err != nil || res.Keys != int64(len(want)) || res.Revision <= r.Header().Revision {
				t.Fatalf("%+v, %v", res, err)
			}
			leased, err := to.KV.Get(t.Context(), "/registry/events/x")
			if err != nil || len(leased.Kvs) != 1 || leased.Kvs[0].Lease == 0 {
				t.Fatalf("%+v, %v", leased, err)
			}
			left, err := to.Lease.TimeToLive(t.Context(), clientv3.LeaseID(leased.Kvs[0].Lease))
			if err != nil || left.TTL < 3500 || left.TTL > 3600 {
				t.Errorf("the lease has %+v left, %v", left, err)
			}
			if err := to.verifyAllAbove(t.Context(), r.Header().Revision); err != nil {
				t.Error(err)
			}
			r, _ = taken(t, s)
			if _, err := Load(t.Context(), r, to, nil); !errors.Is(err, ErrNotEmpty) {
				t.Errorf("over what is there: %v", err)
			}

			from, err := NewSource(t.Context(), to, "acme")
			if err != nil {
				t.Fatal(err)
			}
			back, data := taken(t, from)
			if got := values(t, data); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%d keys came back of %d", len(got), len(want))
			}
			path := filepath.Join(t.TempDir(), "back.db")
			restored, err := backup.Restore(t.Context(), bytes.NewReader(data), backup.Target{Path: path, Tenant: "acme"})
			if err != nil || restored.Keys != int64(len(want)) || restored.Revision <= back.Header().Revision {
				t.Errorf("%+v, %v", restored, err)
			}
			if left, err := Left(t.Context(), to, "acme"); left || err != nil {
				t.Errorf("it was left already: %v, %v", left, err)
			}
			if err := Leave(t.Context(), to, "acme"); err != nil {
				t.Fatal(err)
			}
			if left, err := Left(t.Context(), to, "acme"); !left || err != nil {
				t.Errorf("it was not left: %v, %v", left, err)
			}
			if _, err := NewSource(t.Context(), to, "acme"); !errors.Is(err, store.ErrForeign) {
				t.Errorf("after it was left: %v", err)
			}
			r, _ = taken(t, s)
			if _, err := Load(t.Context(), r, to, nil); err != nil {
				t.Errorf("moved there again: %v", err)
			}
		})
	}
}

// verifyAllAbove wants every key of ours to have been written after a revision.
func (s Side) verifyAllAbove(ctx context.Context, rev int64) error {
	all, err := s.KV.Get(ctx, "", clientv3.WithPrefix())
	if err != nil {
		return err
	}
	for _, kv := range all.Kvs {
		if kv.ModRevision <= rev {
			return fmt.Errorf("%s is at revision %d, the store was at %d", kv.Key, kv.ModRevision, rev)
		}
	}
	return nil
}

// A move that was interrupted anywhere is begun anew; nobody takes what is there for
// a cluster meanwhile.
func TestInterrupted(t *testing.T) {
	to := own(t)
	s := filled(t)
	for _, after := range []int64{1, 500, 900} {
		ctx, cancel := context.WithCancel(t.Context())
		r, _ := taken(t, s)
		_, err := Load(ctx, r, to, func(n int64) {
			if n >= after {
				cancel()
			}
		})
		cancel()
		if err == nil {
			t.Fatalf("after %d keys: it was not interrupted", after)
		}
		if _, err := NewSource(t.Context(), to, "acme"); !errors.Is(err, store.ErrForeign) {
			t.Errorf("after %d keys it is taken for whole: %v", after, err)
		}
	}
	// a backup that turns out to be damaged is not finished either
	_, data := taken(t, s)
	data[len(data)-9] ^= 1
	r, err := backup.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Load(t.Context(), r, to, nil); !errors.Is(err, backup.ErrDamaged) {
		t.Errorf("damaged: %v", err)
	}
	if _, err := NewSource(t.Context(), to, "acme"); !errors.Is(err, store.ErrForeign) {
		t.Errorf("a damaged one is taken for whole: %v", err)
	}
	r, _ = taken(t, s)
	if res, err := Load(t.Context(), r, to, nil); err != nil || res.Keys != 1001 {
		t.Errorf("%+v, %v", res, err)
	}
	if _, err := NewSource(t.Context(), to, "acme"); err != nil {
		t.Error(err)
	}
}

func TestRefuses(t *testing.T) {
	s := filled(t)
	load := func(to Side, data []byte) error {
		r, err := backup.NewReader(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		_, err = Load(t.Context(), r, to, nil)
		return err
	}
	_, data := taken(t, s)
	for key, value := range map[string]string{"x": "y", idKey: "globex", movingKey: "globex"} {
		to := own(t)
		if _, err := to.KV.Put(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
		if err := load(to, data); !errors.Is(err, ErrNotEmpty) {
			t.Errorf("%s=%s: %v", key, value, err)
		}
	}
	var far bytes.Buffer
	w, err := backup.NewWriter(&far, backup.Header{Tenant: "acme", Revision: 2 * mostBehind})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := load(own(t), far.Bytes()); !errors.Is(err, ErrBehind) || !strings.Contains(err.Error(), "--bump-revision") {
		t.Errorf("too far behind: %v", err)
	}
	if err := load(own(t), data); err != nil {
		t.Errorf("a good one: %v", err)
	}
}
