package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"sublet.dev/tenant-apiserver/store"
)

func open(t testing.TB, path string, o store.Options) *store.Store {
	t.Helper()
	o.NoSync = true
	s, err := store.Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func put(t testing.TB, s *store.Store, key, value string, lease int64) int64 {
	t.Helper()
	r, err := s.Txn(context.Background(), store.Txn{Then: []store.Op{{Put: &store.Put{Key: []byte(key), Value: []byte(value), Lease: lease}}}})
	if err != nil {
		t.Fatal(err)
	}
	return r.Revision
}

// state is what a store holds, as text.
func state(t testing.TB, s *store.Store, rev int64) map[string]string {
	t.Helper()
	res, err := s.Read(context.Background(), store.Read{Range: store.Everything(), Revision: rev})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, kv := range res.KVs {
		out[string(kv.Key)] = string(kv.Value)
	}
	return out
}

// filled is a store with history, deletions and leases.
func filled(t testing.TB) *store.Store {
	t.Helper()
	s := open(t, filepath.Join(t.TempDir(), "store.db"), store.Options{ID: "acme"})
	for i := range 300 {
		put(t, s, fmt.Sprintf("/registry/pods/ns/%d", i%100), strings.Repeat("v", i), 0)
	}
	for id := int64(1); id <= 2; id++ {
		if _, err := s.Grant(t.Context(), id, 1000*id); err != nil {
			t.Fatal(err)
		}
		put(t, s, fmt.Sprint("/registry/events/", id), "e", id)
	}
	if _, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{{Delete: &store.Range{Key: []byte("/registry/pods/ns/7")}}}}); err != nil {
		t.Fatal(err)
	}
	return s
}

// taken returns a backup's bytes.
func taken(t testing.TB, s Source) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, _, err := Take(context.Background(), s, &b, Options{Name: "acme", Program: "test"}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// read returns what a backup holds, and fails unless it is whole.
func read(t testing.TB, data []byte) (Header, map[string]string) {
	t.Helper()
	r, err := NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for {
		_, e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return r.Header(), out
		}
		if err != nil {
			t.Fatal(err)
		}
		if e != nil {
			out[string(e.Key)] = string(e.Value)
		}
	}
}

func equal(a, b map[string]string) bool {
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return len(a) == len(b)
}

// A backup taken while others write is the state at its revision, and nothing later.
func TestTakeAmongWrites(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"), store.Options{ID: "acme"})
	for i := range 5000 {
		put(t, s, fmt.Sprintf("k%04d", i), "before", 0)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var group sync.WaitGroup
	writing := make(chan struct{})
	for w := range 4 {
		group.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				op := store.Op{Put: &store.Put{Key: fmt.Appendf(nil, "k%04d", rand.IntN(6000)), Value: fmt.Appendf(nil, "%d/%d", w, i)}}
				if i%5 == 0 {
					op = store.Op{Delete: &store.Range{Key: fmt.Appendf(nil, "k%04d", rand.IntN(6000))}}
				}
				if _, err := s.Txn(ctx, store.Txn{Then: []store.Op{op}}); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
				if w == 0 && i == 50 {
					close(writing)
				}
			}
		})
	}
	<-writing
	later := int64(0)
	var b bytes.Buffer
	h, f, err := Take(t.Context(), s, &b, Options{Progress: func(int64) { later = put(t, s, "zz-later", "x", 0) }})
	stop()
	group.Wait()
	if err != nil {
		t.Fatal(err)
	}
	got, kvs := read(t, b.Bytes())
	if want := state(t, s, h.Revision); !equal(kvs, want) || got != h || f.Entries != int64(len(want)) {
		t.Errorf("backup of revision %d has %d keys, want %d", h.Revision, len(kvs), len(want))
	}
	if _, there := kvs["zz-later"]; there || later <= h.Revision || equal(kvs, state(t, s, 0)) {
		t.Errorf("revision %d: a later write, at %d, is in it, or there was none", h.Revision, later)
	}
}

// A backup that a compaction overtakes says to try again.
func TestTakeOvertaken(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"), store.Options{})
	for i := range 3000 {
		put(t, s, fmt.Sprintf("k%04d", i), "v", 0)
	}
	_, _, err := Take(t.Context(), s, io.Discard, Options{Progress: func(int64) {
		if _, err := s.Compact(t.Context(), put(t, s, "later", "x", 0)); err != nil {
			t.Fatal(err)
		}
	}})
	if !errors.Is(err, ErrTryAgain) {
		t.Errorf("%v", err)
	}
	if _, _, err := Take(t.Context(), s, io.Discard, Options{}); err != nil {
		t.Errorf("tried again: %v", err)
	}
}

// TestEveryFlip flips a bit of every byte of a backup, cuts it at every length,
// leaves out, doubles and swaps its parts, and wants each refused.
func TestEveryFlip(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"), store.Options{ID: "acme"})
	for i := range 20 {
		put(t, s, fmt.Sprintf("/registry/pods/%02d", i), strings.Repeat("v", 5*i), 0)
	}
	if _, err := s.Grant(t.Context(), 5, 1000); err != nil {
		t.Fatal(err)
	}
	put(t, s, "/registry/zz", "leased", 5)
	good := taken(t, s)
	if _, _, err := Verify(bytes.NewReader(good)); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	refused := func(what string, data []byte) {
		t.Helper()
		_, _, err := Verify(bytes.NewReader(data))
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNotBackup) && !errors.Is(err, ErrNewerFormat) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for at := range good {
		bad := bytes.Clone(good)
		bad[at] ^= 1 << (at % 8)
		refused(fmt.Sprintf("byte %d flipped", at), bad)
		refused(fmt.Sprintf("cut at %d", at), good[:at])
	}
	refused("something behind it", append(bytes.Clone(good), 0))
	refused("twice", append(bytes.Clone(good), good...))
	parts := frames(t, good)
	for i := range parts {
		refused(fmt.Sprintf("without part %d", i), join(good, parts, func(p [][]byte) [][]byte { return append(p[:i:i], p[i+1:]...) }))
		refused(fmt.Sprintf("part %d twice", i), join(good, parts, func(p [][]byte) [][]byte { return append(append(append([][]byte{}, p[:i]...), p[i], p[i]), p[i+1:]...) }))
		if i > 0 {
			refused(fmt.Sprintf("parts %d and %d swapped", i-1, i), join(good, parts, func(p [][]byte) [][]byte {
				p = append([][]byte{}, p...)
				p[i-1], p[i] = p[i], p[i-1]
				return p
			}))
		}
	}
	if same := join(good, parts, func(p [][]byte) [][]byte { return p }); !bytes.Equal(same, good) {
		t.Error("the parts are not the whole")
	}
}

// frames cuts a backup into its frames.
func frames(t *testing.T, data []byte) (out [][]byte) {
	t.Helper()
	for at := len(magic) + 4; at < len(data); {
		n := frameHead + int(uint32(data[at+1])<<24|uint32(data[at+2])<<16|uint32(data[at+3])<<8|uint32(data[at+4])) + frameTail
		out = append(out, data[at:at+n])
		at += n
	}
	return out
}

func join(data []byte, parts [][]byte, change func([][]byte) [][]byte) []byte {
	out := bytes.Clone(data[:len(magic)+4])
	for _, p := range change(parts) {
		out = append(out, p...)
	}
	return out
}

func TestRefusesForeign(t *testing.T) {
	good := taken(t, filled(t))
	newer := bytes.Clone(good)
	newer[len(magic)+3] = 99
	for name, c := range map[string]struct {
		data []byte
		want error
	}{
		"empty":        {nil, ErrNotBackup},
		"text":         {[]byte("apiVersion: v1\nkind: List\n"), ErrNotBackup},
		"a store":      {bytes.Repeat([]byte{0}, 4096), ErrNotBackup},
		"newer format": {newer, ErrNewerFormat},
		"half":         {good[:len(good)/2], ErrDamaged},
		"only a magic": {[]byte(magic), ErrDamaged},
	} {
		if _, _, err := Verify(bytes.NewReader(c.data)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestWriteFile(t *testing.T) {
	s := filled(t)
	take := func(w io.Writer) error { _, _, err := Take(t.Context(), s, w, Options{}); return err }
	dir := t.TempDir()
	path := filepath.Join(dir, "acme.backup")
	h, f, err := WriteFile(path, false, take)
	if err != nil || f.Entries != 101 || h.Tenant != "acme" {
		t.Fatalf("%+v, %+v, %v", h, f, err)
	}
	if _, _, err := WriteFile(path, false, take); !errors.Is(err, fs.ErrExist) {
		t.Errorf("written over: %v", err)
	}
	if _, _, err := WriteFile(path, true, take); err != nil {
		t.Errorf("asked to replace: %v", err)
	}
	failing := errors.New("it fails")
	if _, _, err := WriteFile(filepath.Join(dir, "x"), false, func(w io.Writer) error {
		return errors.Join(take(w), failing)
	}); !errors.Is(err, failing) {
		t.Errorf("%v", err)
	}
	// what was written is not what arrived
	if _, _, err := WriteFile(filepath.Join(dir, "y"), false, func(w io.Writer) error {
		_, err := w.Write(taken(t, s)[:500])
		return err
	}); !errors.Is(err, ErrDamaged) {
		t.Errorf("%v", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

// FuzzReader wants any bytes refused or read as what encodes the same, without a
// panic; and what is refused never to be restored.
func FuzzReader(f *testing.F) {
	good := taken(f, filled(f))
	f.Add(good, uint32(0), []byte{})
	f.Add(good, uint32(20), []byte{1})
	f.Add(good[:40], uint32(0), []byte{})
	f.Fuzz(func(t *testing.T, data []byte, at uint32, patch []byte) {
		bad := bytes.Clone(data)
		if len(bad) > 0 {
			copy(bad[int(at)%len(bad):], patch)
		}
		_, _, err := Verify(bytes.NewReader(bad))
		if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNotBackup) && !errors.Is(err, ErrNewerFormat) {
			t.Errorf("%v", err)
		}
		path := filepath.Join(t.TempDir(), "store.db")
		if err == nil && !bytes.Equal(bad, good) {
			return // another good one: the fuzzer would have to find a SHA-256
		}
		if _, restoreErr := Restore(t.Context(), bytes.NewReader(bad), Target{Path: path, Tenant: "acme"}); (restoreErr == nil) != (err == nil) {
			t.Errorf("verified: %v, restored: %v", err, restoreErr)
		}
		if _, statErr := os.Stat(path); err != nil && statErr == nil {
			t.Error("a damaged backup became a store")
		}
	})
}
