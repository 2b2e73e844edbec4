package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// filled writes a store file with some history and returns its bytes.
func filled(t testing.TB) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "filled.db")
	s, err := Open(path, Options{NoSync: true, ID: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		mustPut(t, s, fmt.Sprintf("/registry/pods/ns/%d", i%100), strings.Repeat("v", i))
	}
	mustDelete(t, s, "/registry/pods/ns/7")
	if _, err := s.Grant(t.Context(), 1, 3600); err != nil {
		t.Fatal(err)
	}
	mustTxn(t, s, Op{Put: &Put{Key: []byte("leased"), Lease: 1}})
	var b bytes.Buffer
	if _, err := s.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// foreign is a bbolt file of another program.
func foreign(t *testing.T) []byte {
	path := filepath.Join(t.TempDir(), "other.db")
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("theirs")); return err })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// newer is a file of ours with a format from the future.
func newer(t *testing.T) []byte {
	path := filepath.Join(t.TempDir(), "newer.db")
	if err := os.WriteFile(path, filled(t), 0o600); err != nil {
		t.Fatal(err)
	}
	editHead(t, path, func(head) []byte {
		return append(appendInts(nil, format+1), "whatever comes then"...)
	})
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// editHead puts another head into a closed file.
func editHead(t *testing.T, path string, edit func(head) []byte) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		meta := tx.Bucket(bucketMeta.name())
		h, err := readHead(meta)
		if err != nil {
			return err
		}
		return meta.Put(keyHead, seal(bucketMeta, keyHead, edit(h)))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestOpenRefuses wants for each kind of bad file its error, the file's name and
// what to do, and the file left as it was.
func TestOpenRefuses(t *testing.T) {
	good := filled(t)
	wiped := bytes.Clone(good)
	clear(wiped[:2*os.Getpagesize()])
	badMetas := bytes.Clone(good)
	badMetas[100] ^= 1 // within the checksummed part of both meta pages
	badMetas[60] ^= 1
	badMetas[os.Getpagesize()+60] ^= 1
	for _, test := range []struct {
		name  string
		bytes []byte
		id    string
		want  error
		says  string
	}{
		{"text", bytes.Repeat([]byte("apiVersion: v1\n"), 1000), "", ErrForeign, "keep this file under another name"},
		{"short text", []byte("x"), "", ErrForeign, "keep this file under another name"},
		{"another program's", foreign(t), "", ErrForeign, "another program"},
		{"another tenant's", good, "globex", ErrForeign, `belongs to "acme"`},
		{"empty", nil, "", ErrCorrupt, "it is empty"},
		{"half", good[:len(good)/2], "", ErrCorrupt, "truncated"},
		{"a page short", good[:len(good)-os.Getpagesize()], "", ErrCorrupt, "truncated"},
		{"cut in the first page", good[:200], "", ErrCorrupt, "truncated"},
		{"bad meta pages", badMetas, "", ErrCorrupt, "restore a backup"},
		{"wiped meta pages", wiped, "", ErrForeign, "not a bbolt file"},
		{"newer", newer(t), "", ErrNewerFormat, "newer release"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			if err := os.WriteFile(path, test.bytes, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := Open(path, Options{ID: test.id})
			if err == nil {
				s.Close()
			}
			if !errors.Is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			if msg := err.Error(); !strings.Contains(msg, path) || !strings.Contains(msg, test.says) || !strings.Contains(msg, "; ") {
				t.Errorf("the message does not help: %s", msg)
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(after, test.bytes) {
				t.Error("the file was changed")
			}
			if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestOpenNoFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(filepath.Join(dir, "no", "such", "store.db"), Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing folder: %v", err)
	}
	if _, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("a folder: %v", err)
	}
	if _, err := Open(filepath.Join(dir, "s"), Options{HotBytes: -1}); err == nil || !strings.Contains(err.Error(), "HotBytes") {
		t.Errorf("bad option: %v", err)
	}
	path := filepath.Join(dir, "store.db")
	if err := os.WriteFile(path+".new", []byte("an earlier start was killed"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := openAt(t, path, Options{})
	if st, err := s.Stats(t.Context()); err != nil || st.Revision != 1 || st.FileBytes > 64<<10 {
		t.Errorf("new store: %+v, %v", st, err)
	}
}

func TestOpenTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	openAt(t, path, Options{})
	_, err := Open(path, Options{})
	if !errors.Is(err, ErrInUse) {
		t.Fatal(err)
	}
	if who := fmt.Sprintf("process %d", os.Getpid()); !strings.Contains(err.Error(), who) || !strings.Contains(err.Error(), path) {
		t.Errorf("the message does not say who holds which file: %v", err)
	}
}

// TestBitFlips flips single bits all over a file. Open must then refuse it or
// serve exactly what was written, and must never take the process down.
func TestBitFlips(t *testing.T) {
	good := filled(t)
	path := filepath.Join(t.TempDir(), "store.db")
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := show(mustRead(t, s, Read{Range: everything()}))
	s.Close()

	r, refused := rand.New(rand.NewPCG(1, 2)), 0
	flips := 600
	if testing.Short() {
		flips = 100
	}
	for range flips {
		at, bit := r.IntN(len(good)), byte(1)<<r.IntN(8)
		if r.IntN(2) == 0 { // page headers and elements, where it hurts
			at = at/os.Getpagesize()*os.Getpagesize() + r.IntN(64)
		}
		bad := bytes.Clone(good)
		bad[at] ^= bit
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(path, Options{NoSync: true})
		if err != nil {
			refused++
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrForeign) {
				t.Errorf("byte %d, bit %#x: %v", at, bit, err)
			}
			continue
		}
		if got := show(mustRead(t, s, Read{Range: everything()})); got != want {
			t.Errorf("byte %d, bit %#x: other data served\n got %.300s", at, bit, got)
		}
		if err := s.put("more", "data"); err != nil {
			t.Errorf("byte %d, bit %#x: %v", at, bit, err)
		}
		verify(t, s)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d of %d flips were refused; the others hit unused bytes", refused, flips)
}

// TestDamageWhileOpen truncates the file below an open store: reading a page
// that is gone is a fault, which must end this store and not the process.
func TestDamageWhileOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	if err := os.WriteFile(path, filled(t), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(path, Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, int64(2*os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(t.Context(), Read{Range: everything()}); !errors.Is(err, ErrFailed) || !errors.Is(err, ErrCorrupt) {
		t.Errorf("read: %v", err)
	}
	if err := s.put("a", "b"); !errors.Is(err, ErrFailed) {
		t.Errorf("write: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Logf("close: %v", err)
	}
}

// TestWriteTo copies a store while it is written to: the copy is a whole store
// of one moment, and without an ID becomes anybody's.
func TestWriteTo(t *testing.T) {
	s := openTemp(t, Options{})
	for i := range 100 {
		mustPut(t, s, fmt.Sprint(i), "v")
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				s.put(fmt.Sprint("more ", i), "v")
			}
		}
	}()
	path := filepath.Join(t.TempDir(), "copy.db")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	n, err := s.WriteTo(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	close(stop)
	<-done
	c := openAt(t, path, Options{ID: "acme"})
	res := mustRead(t, c, Read{Range: everything(), CountOnly: true})
	if res.Count < 100 || res.Revision != res.Count+1 {
		t.Errorf("copy of %d bytes has %d keys at revision %d", n, res.Count, res.Revision)
	}
	if st, err := c.Stats(t.Context()); err != nil || st.ID != "acme" {
		t.Errorf("%+v, %v", st, err)
	}
}
