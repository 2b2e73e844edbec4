package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
	"weak"
)

// holdCheckpoints keeps every checkpoint from committing until release is called.
func holdCheckpoints(t *testing.T) (release func()) {
	hold := make(chan struct{})
	onFault = func(at faultPoint) {
		if at == faultCheckpointApplied {
			<-hold
		}
	}
	released := false
	release = func() {
		if !released {
			released = true
			close(hold)
		}
	}
	t.Cleanup(func() { release(); onFault = nil })
	return release
}

// crashed copies a store's files as a crash of its process would leave them.
func crashed(t *testing.T, path string) string {
	t.Helper()
	into := filepath.Join(t.TempDir(), "store.db")
	for _, end := range []string{"", ".wal0", ".wal1"} {
		b, err := os.ReadFile(path + end)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(into+end, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return into
}

// wantKeys wants the keys 0 to n-1, and nothing else, at the revision n+1.
func wantKeys(t *testing.T, s *Store, n int) {
	t.Helper()
	res := mustRead(t, s, Read{Range: everything(), CountOnly: true})
	if res.Count != int64(n) || res.Revision != int64(n)+1 {
		t.Fatalf("%d keys at revision %d, want %d", res.Count, res.Revision, n)
	}
	for i := range n {
		if res := mustRead(t, s, Read{Range: Range{Key: fmt.Append(nil, i)}}); res.Count != 1 {
			t.Fatalf("key %d is not there", i)
		}
	}
}

// TestCrashTwice crashes while both segments hold what the file lacks, and again
// before the file has it.
func TestCrashTwice(t *testing.T) {
	release := holdCheckpoints(t)
	path := filepath.Join(t.TempDir(), "store.db")
	o := Options{NoSync: true, pace: pace{layerBytes: 4 << 10, backlogBytes: 1 << 30, layerAge: time.Hour, retry: time.Hour}}
	n := 0
	write := func(s *Store, keys int) {
		for range keys {
			mustPut(t, s, fmt.Sprint(n), strings.Repeat("v", 200))
			n++
		}
	}
	first, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	write(first, 100) // a checkpoint begins, and holds; what comes then is in the other segment
	path = crashed(t, path)
	for _, end := range []string{".wal0", ".wal1"} {
		if b, _ := os.ReadFile(path + end); len(bytes.Trim(b, "\x00")) == 0 {
			t.Errorf("%s has nothing", end)
		}
	}
	second, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	wantKeys(t, second, n)
	write(second, 50)
	third := openAt(t, crashed(t, path), o)
	wantKeys(t, third, n)
	release()
	for _, s := range []*Store{first, second, third} {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s := openAt(t, path, o)
	wantKeys(t, s, n)
}

// TestClosedIsOneFile wants the log gone after Close, and everything in the file.
func TestClosedIsOneFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		mustPut(t, s, fmt.Sprint(i), "v")
	}
	if _, err := os.Stat(path + ".wal0"); err != nil {
		t.Errorf("an open store has no log: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
	wantKeys(t, openAt(t, path, Options{}), 100)
}

// TestRest lets a store rest after much work: what it holds in memory and on
// disk for speed goes.
func TestRest(t *testing.T) {
	clock, path := newFakeClock(), filepath.Join(t.TempDir(), "store.db")
	s := openAt(t, path, Options{NoSync: true, Clock: clock})
	for i := range 300 {
		mustPut(t, s, fmt.Sprint(i), strings.Repeat("v", 10_000))
	}
	if info, err := os.Stat(path + ".wal0"); err != nil || info.Size() < 3_000_000 {
		t.Fatalf("%v, %v", info, err)
	}
	held := weak.Make(s.now.Load().layers[0])
	clock.advance(s.o.pace.layerAge)
	await(t, func() bool {
		st := s.now.Load()
		info, err := os.Stat(path + ".wal0")
		if err != nil {
			t.Fatal(err)
		}
		return len(st.layers) == 1 && st.layers[0].empty() && info.Size() > minSegment
	})
	await(t, func() bool { runtime.GC(); return held.Value() == nil })
	await(t, func() bool {
		clock.advance(s.o.pace.restAge)
		info, err := os.Stat(path + ".wal0")
		if err != nil {
			t.Fatal(err)
		}
		return info.Size() == minSegment
	})
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	if n := len(s.hub.ring); n > 0 {
		t.Errorf("%d events are held", n)
	}
}

// logged returns the bytes of a log with n groups, and a file that has none of
// them.
func logged(t testing.TB, n int) (file, log []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store.db")
	s, err := Open(path, Options{NoSync: true, Clock: newFakeClock()}) // whose log stays
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		mustPut(t, s, fmt.Sprint(i), strings.Repeat("v", i*7))
	}
	if file, err = os.ReadFile(path); err == nil {
		log, err = os.ReadFile(path + ".wal0")
	}
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	return file, log
}

// unlog writes them where Open finds them.
func unlog(t testing.TB, file, log []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store.db")
	if err := errors.Join(os.WriteFile(path, file, 0o600), os.WriteFile(path+".wal0", log, 0o600)); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestLogDamage cuts and damages a log at every frame: only the end of the last
// one may be missing.
func TestLogDamage(t *testing.T) {
	const n = 20
	file, log := logged(t, n)
	line := headOf(t, file).line
	s := &segment{}
	frames := s.parse(log, line)
	if len(frames) != n {
		t.Fatalf("%d frames", len(frames))
	}
	wantKeys(t, openAt(t, unlog(t, file, log), Options{NoSync: true}), n) // control
	at := 0
	for i, f := range frames {
		size := frameSize(frameHeader + len(f.changes))
		for _, offset := range []int{3, 9, 17, 25, 29, frameHeader, frameHeader + len(f.changes) - 1} {
			bad := bytes.Clone(log)
			bad[at+offset] ^= 1
			s, err := Open(unlog(t, file, bad), Options{NoSync: true})
			if i < n-1 && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrForeign) {
				t.Errorf("frame %d, byte %d: %v", i, offset, err)
			}
			if err == nil {
				wantKeys(t, s, n-1)
				s.Close()
			} else if i == n-1 {
				t.Errorf("the end of the last frame: %v", err)
			}
		}
		short := openAt(t, unlog(t, file, log[:at+size/2]), Options{NoSync: true})
		wantKeys(t, short, i)
		at += size
	}
}

func headOf(t testing.TB, file []byte) (h head) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store.db")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(path, Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	h = s.now.Load().head
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return h
}

// TestLogOfAnother wants a log refused that is not the file's, does not join it,
// or is all that is left.
func TestLogOfAnother(t *testing.T) {
	file, log := logged(t, 20)
	other, _ := logged(t, 20)
	line := headOf(t, file).line
	_, first, _ := openFrame(log, line)
	gap := append(bytes.Clone(log[first:]), make([]byte, first)...)
	for _, test := range []struct {
		name      string
		file, log []byte
		want      error
	}{
		{"another file's", other, log, ErrForeign},
		{"text", file, bytes.Repeat([]byte("hello "), 100), ErrForeign},
		{"without its first frame", file, gap, ErrCorrupt},
		{"without a file", nil, log, ErrCorrupt},
	} {
		path := unlog(t, test.file, test.log)
		if test.file == nil {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		s, err := Open(path, Options{NoSync: true})
		if err == nil {
			s.Close()
		}
		if !errors.Is(err, test.want) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "; ") {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
		if after, _ := os.ReadFile(path + ".wal0"); !bytes.Equal(after, test.log) {
			t.Errorf("%s: the log was changed", test.name)
		}
	}
}

// TestStaleLap writes over a log again and again: what an earlier lap left behind
// the end never comes back, not even as whole frames.
func TestStaleLap(t *testing.T) {
	clock, path := newFakeClock(), filepath.Join(t.TempDir(), "store.db")
	o := Options{NoSync: true, Clock: clock}
	s := openAt(t, path, o)
	n := 0
	for range 8 {
		for range 10 {
			mustPut(t, s, fmt.Sprint(n), strings.Repeat("v", 100))
			n++
			wantKeys(t, openAt(t, crashed(t, path), o), n)
		}
		if err := s.flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUpgrade opens a file of the format before.
func TestUpgrade(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s, err := Open(path, Options{NoSync: true, ID: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		mustPut(t, s, fmt.Sprint(i), "v")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	editHead(t, path, func(h head) []byte {
		b := appendInts(nil, formatBefore, h.rev, h.compacted, h.swept.rev, int64(h.swept.sub))
		return append(appendInts(b, h.sizes[:]...), h.id...)
	})
	s = openAt(t, path, Options{NoSync: true, ID: "acme", Clock: newFakeClock()})
	if h := s.now.Load().head; h.line == 0 || h.id != "acme" || h.seq != 0 {
		t.Errorf("%+v", h)
	}
	wantKeys(t, s, 10)
	mustPut(t, s, "10", "v")
	wantKeys(t, openAt(t, crashed(t, path), Options{}), 11)
}

// TestForgedFrames writes values that look like frames: what is read back after
// a crash with a torn end is never one of them.
func TestForgedFrames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := openAt(t, path, Options{NoSync: true, Clock: newFakeClock()}) // whose log stays
	h := s.now.Load().head
	for i := range 20 {
		seq := h.seq + int64(i) + 1
		b, _ := endChange(beginChange(newFrame(0), bucketMeta, keyHead), frameHeader)
		forged := sealFrame(b, h.line^1, 1, seq+1) // the line is what nobody can know
		mustPut(t, s, fmt.Sprint(i), strings.Repeat(string(forged), 10))
		torn := crashed(t, path)
		log, err := os.ReadFile(torn + ".wal0")
		if err != nil {
			t.Fatal(err)
		}
		end := int(s.walEnd())
		clear(log[end-200 : end-100])
		if err := os.WriteFile(torn+".wal0", log, 0o600); err != nil {
			t.Fatal(err)
		}
		wantKeys(t, openAt(t, torn, Options{NoSync: true}), i)
	}
}

// walEnd asks the writer how far its log goes.
func (s *Store) walEnd() (end int64) {
	s.submit(context.Background(), 0, func(*group) error { end = s.wal.segments[0].end; return nil })
	return end
}
