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
	f.Add(record{create: 2, version: 1, key: []byte("a"), value: []byte("b")}.appendTo(nil))
	f.Add(record{deleted: true, prev: pos{7, 3}, key: []byte("a")}.appendTo(nil))
	f.Add(entry{at: pos{9, 1}, create: 2, version: 3, lease: 4}.appendTo(nil))
	f.Add(head{format: format, rev: 5, compacted: 3, swept: pos{3, 0}, id: "acme"}.appendTo(nil))
	f.Add(lease{ttl: 60, deadline: 1}.appendTo(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeRecord(b); err == nil {
			again, err := decodeRecord(r.appendTo(nil))
			if err != nil || !bytes.Equal(again.key, r.key) || !bytes.Equal(again.value, r.value) ||
				again.prev != r.prev || again.version != r.version || again.deleted != r.deleted {
				t.Errorf("%+v became %+v, %v", r, again, err)
			}
		}
		if e, err := decodeEntry(b); err == nil {
			if again, err := decodeEntry(e.appendTo(nil)); err != nil || again != e {
				t.Errorf("%+v became %+v, %v", e, again, err)
			}
		}
		if h, err := decodeHead(b); err == nil && h.format == format {
			if again, err := decodeHead(h.appendTo(nil)); err != nil || again != h {
				t.Errorf("%+v became %+v, %v", h, again, err)
			}
		}
		if l, err := decodeLease(b); err == nil {
			if again, err := decodeLease(l.appendTo(nil)); err != nil || again != l {
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

// FuzzFrame wants any bytes refused as a frame, or read as what encodes the same,
// and changes that no group makes refused.
func FuzzFrame(f *testing.F) {
	const line = 0x1122334455667788
	b := beginChange(newFrame(0), bucketCur, []byte("k"))
	b, _ = endChange(entry{at: pos{2, 0}, create: 2, version: 1}.appendTo(b), frameHeader)
	b, _ = removal(b, bucketLog, pos{1, 0}.bytes())
	from := len(b)
	b, _ = endChange(head{format: format, rev: 1, seq: 7, line: line}.appendTo(beginChange(b, bucketMeta, keyHead)), from)
	good := sealFrame(b, line, 7, 7)
	f.Add(good)
	f.Add(good[frameHeader:])
	f.Fuzz(func(t *testing.T, b []byte) {
		if fr, size, ok := openFrame(b, line); ok {
			again := sealFrame(append(newFrame(0), fr.changes...), line, fr.lap, fr.seq)
			if n := frameHeader + len(fr.changes); !bytes.Equal(again[:n], b[:n]) || size > len(b) {
				t.Errorf("%x became %x", b[:size], again)
			}
		}
		l := newLayer()
		h := head{rev: 1, seq: 6, line: line}
		if next, err := (frame{lap: 7, seq: 7, changes: b}).replay(l, h); err == nil && (next.seq != 7 || next.rev < h.rev || l.empty()) {
			t.Errorf("replayed to %+v", next)
		}
		for rest := b; len(rest) > 0; {
			c, more, err := readChange(rest)
			if err != nil {
				break
			}
			var again []byte
			if c.value == nil {
				again, _ = removal(nil, c.bucket, c.key)
			} else if _, err := unseal(c.bucket, c.key, c.value); err == nil {
				again, _ = endChange(append(beginChange(nil, c.bucket, c.key), c.value[:len(c.value)-4]...), 0)
			} else {
				again = rest[:len(rest)-len(more)]
			}
			if !bytes.Equal(again, rest[:len(rest)-len(more)]) {
				t.Errorf("%x became %x", rest[:len(rest)-len(more)], again)
			}
			rest = more
		}
	})
}

// FuzzLog writes any bytes over any place of a good log. Open serves all groups
// before the first bad one when none behind it is good, and refuses otherwise.
func FuzzLog(f *testing.F) {
	file, log := logged(f, 12)
	path := unlog(f, file, log)
	frames := (&segment{}).parse(log, headOf(f, file).line)
	f.Add(uint32(0), []byte{1})
	f.Add(uint32(frameHeader), []byte{1, 0, 0, 1, 0xff})
	f.Add(uint32(len(log)-1), []byte("behind the end"))
	f.Fuzz(func(t *testing.T, at uint32, patch []byte) {
		bad := bytes.Clone(log)
		copy(bad[at%uint32(len(bad)):], patch)
		if err := errors.Join(os.WriteFile(path, file, 0o600), os.WriteFile(path+".wal0", bad, 0o600)); err != nil {
			t.Fatal(err)
		}
		first, behind, from := len(frames), false, 0
		for i, fr := range frames {
			n := frameHeader + len(fr.changes)
			if good := bytes.Equal(bad[from:from+n], log[from:from+n]); !good {
				first = min(first, i)
			} else if i > first {
				behind = true
			}
			from += frameSize(n)
		}
		s, err := Open(path, Options{NoSync: true})
		if err != nil {
			if !behind && !errors.Is(err, ErrForeign) || !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrForeign) {
				t.Error(err)
			}
			return
		}
		if res := mustRead(t, s, Read{Range: everything(), CountOnly: true}); behind || res.Count != int64(first) {
			t.Errorf("%d keys are there, %d groups are good, and others behind: %v", res.Count, first, behind)
		}
		verify(t, s)
		if err := s.Close(); err != nil {
			t.Error(err)
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
