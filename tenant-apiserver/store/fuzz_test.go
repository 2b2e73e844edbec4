package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// FuzzRecord wants decoders to refuse or to give back what encodes the same.
func FuzzRecord(f *testing.F) {
	f.Add(record{create: 2, version: 1, key: []byte("a"), value: []byte("b")}.encode())
	f.Add(record{deleted: true, prev: pos{7, 3}, key: []byte("a")}.encode())
	f.Add(entry{at: pos{9, 1}, create: 2, version: 3, lease: 4}.encode())
	f.Add(head{format: format, rev: 5, compacted: 3, swept: pos{3, 0}, id: "acme"}.encode())
	f.Add(lease{ttl: 60, deadline: 1}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeRecord(b); err == nil {
			again, err := decodeRecord(r.encode())
			if err != nil || !bytes.Equal(again.key, r.key) || !bytes.Equal(again.value, r.value) ||
				again.prev != r.prev || again.version != r.version || again.deleted != r.deleted {
				t.Errorf("%+v became %+v, %v", r, again, err)
			}
		}
		if e, err := decodeEntry(b); err == nil {
			if again, err := decodeEntry(e.encode()); err != nil || again != e {
				t.Errorf("%+v became %+v, %v", e, again, err)
			}
		}
		if h, err := decodeHead(b); err == nil && h.format == format {
			if again, err := decodeHead(h.encode()); err != nil || again != h {
				t.Errorf("%+v became %+v, %v", h, again, err)
			}
		}
		if l, err := decodeLease(b); err == nil {
			if again, err := decodeLease(l.encode()); err != nil || again != l {
				t.Errorf("%+v became %+v, %v", l, again, err)
			}
		}
		sealed := seal(bucketLog, []byte("k"), bytes.Clone(b))
		if _, err := unseal(bucketLog, []byte("k"), sealed); err != nil {
			t.Error(err)
		}
		if _, err := unseal(bucketLog, []byte("l"), sealed); !errors.Is(err, ErrCorrupt) {
			t.Error("a value may be moved to another key")
		}
	})
}

// FuzzPos wants the order of log keys to be the order of revisions.
func FuzzPos(f *testing.F) {
	f.Add(int64(1), uint32(0), int64(256), uint32(1))
	f.Fuzz(func(t *testing.T, rev1 int64, sub1 uint32, rev2 int64, sub2 uint32) {
		a, b := pos{rev1, sub1}, pos{rev2, sub2}
		if got, err := decodePos(a.bytes()); rev1 > 0 && (err != nil || got != a) || rev1 <= 0 && err == nil {
			t.Errorf("%v became %v, %v", a, got, err)
		}
		if rev1 > 0 && rev2 > 0 {
			less := rev1 < rev2 || rev1 == rev2 && sub1 < sub2
			if less != (bytes.Compare(a.bytes(), b.bytes()) < 0) {
				t.Errorf("order of %v and %v", a, b)
			}
		}
	})
}

// FuzzPrefix wants the range of a prefix to have the keys with it and no others.
func FuzzPrefix(f *testing.F) {
	f.Add([]byte("/pods/a"), []byte("/pods/ab"))
	f.Add([]byte("\xff\xff"), []byte("\xff\xff\x00"))
	f.Add([]byte("a\xff"), []byte("b"))
	f.Fuzz(func(t *testing.T, p, key []byte) {
		if len(p) > 0 && Prefix(p).Contains(key) != bytes.HasPrefix(key, p) {
			t.Errorf("prefix %q, key %q", p, key)
		}
	})
}

// FuzzOpen writes any bytes over any place of a good file.
func FuzzOpen(f *testing.F) {
	good := filled(f)
	path := filepath.Join(f.TempDir(), "store.db")
	f.Add(uint32(0), []byte{1})
	f.Add(uint32(os.Getpagesize()*2+8), []byte{1, 0, 0, 1, 0xff})
	f.Fuzz(func(t *testing.T, at uint32, patch []byte) {
		at %= uint32(len(good))
		bad := bytes.Clone(good)
		copy(bad[at:], patch)
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(path, Options{NoSync: true})
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrForeign) {
				t.Error(err)
			}
			return
		}
		verify(t, s)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}
