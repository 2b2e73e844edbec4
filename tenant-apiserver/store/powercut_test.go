package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// scriptSteps is how many things the script does.
const scriptSteps = 160

// script is a fixed sequence of everything that a store does, as seen by one
// client. It is run by a traced child and, for what should come out, by a model.
type script struct {
	r     *rand.Rand
	clock *fakeClock
	held  int64 // the lease that exists; 0: none
}

func newScript() *script { return &script{r: rand.New(rand.NewPCG(11, 7)), clock: newFakeClock()} }

// step is one thing to do: a transaction, or one of the others.
type step struct {
	txn     Txn
	compact int64 // revisions kept
	grant   int64
	revoke  int64
	advance bool // the clock, so that a checkpoint is due
	reopen  bool
}

func (s *script) next(i int) step {
	key := func() []byte { return fmt.Appendf(nil, "key/%02d", s.r.IntN(30)) }
	value := bytes.Repeat(fmt.Appendf(nil, "%d,", i), 1+s.r.IntN(400))
	switch {
	case i%40 == 39:
		return step{reopen: true}
	case i%23 == 22:
		return step{compact: s.r.Int64N(10)}
	case i%17 == 16:
		return step{advance: true}
	case i%13 == 5 && s.held == 0:
		s.held = int64(i)
		return step{grant: s.held}
	case i%13 == 9 && s.held != 0:
		return step{txn: Txn{Then: []Op{{Put: &Put{Key: []byte("hung"), Lease: s.held}}}}}
	case i%29 == 20 && s.held != 0:
		id := s.held
		s.held = 0
		return step{revoke: id}
	case s.r.IntN(4) == 0:
		return step{txn: Txn{Then: []Op{{Delete: &Range{Key: key()}}}}}
	case s.r.IntN(4) == 0:
		return step{txn: Txn{Then: []Op{{Put: &Put{Key: key(), Value: value}}, {Put: &Put{Key: []byte("both"), Value: value}}}}}
	}
	return step{txn: Txn{Then: []Op{{Put: &Put{Key: key(), Value: value}}}}}
}

var scriptPace = pace{
	layerBytes: 6 << 10, backlogBytes: 1 << 20, reserveBytes: 1 << 20, segmentBytes: 4 << 10,
	layerAge: time.Minute, retry: time.Minute, shrinkBytes: 1,
}

// childScript runs the script and prints a line after each step that was
// acknowledged.
func childScript(path string) error {
	sc := newScript()
	o := Options{Clock: sc.clock, SweepSlice: 8, pace: scriptPace}
	s, err := Open(path, o)
	if err != nil {
		return err
	}
	ctx := context.Background()
	fmt.Println("open")
	for i := range scriptSteps {
		st := sc.next(i)
		switch {
		case st.reopen:
			if err = s.Close(); err == nil {
				s, err = Open(path, o)
			}
		case st.advance:
			sc.clock.advance(scriptPace.layerAge)
			err = s.flush(ctx)
		case st.compact > 0:
			var stats Stats
			if stats, err = s.Stats(ctx); err == nil {
				_, err = s.Compact(ctx, stats.Revision-st.compact)
			}
			if errors.Is(err, ErrCompacted) {
				err = nil
			}
		case st.grant != 0:
			_, err = s.Grant(ctx, st.grant, 1_000_000)
		case st.revoke != 0:
			_, err = s.Revoke(ctx, st.revoke)
		default:
			_, err = s.Txn(ctx, st.txn)
		}
		if err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
		fmt.Println("step", i)
	}
	return s.Close()
}

// expected returns what the store looks like before the first step and after
// each.
func (s *script) expected(t *testing.T) []string {
	m := newModel(s.clock)
	all := []string{s.show(m)}
	for i := range scriptSteps {
		switch st := s.next(i); {
		case st.reopen:
		case st.advance:
			s.clock.advance(scriptPace.layerAge)
		case st.compact > 0:
			m.compacted = max(m.compacted, m.rev-st.compact)
		case st.grant != 0:
			m.leases[st.grant] = lease{ttl: 1_000_000}
		case st.revoke != 0:
			m.end(st.revoke)
		default:
			if _, err := m.txn(st.txn); err != nil {
				t.Fatal(err)
			}
		}
		all = append(all, s.show(m))
	}
	return all
}

func (s *script) show(m *model) string {
	return fmt.Sprint(m.rev, m.compacted, len(m.leases), show(m.at(m.rev)))
}

// TestPowerCut records all that a store writes and flushes, and then cuts the
// power after each of its steps: of what was not flushed any part may be on the
// disk. The store must open, with every step that was acknowledged, and at most
// the one more that was on its way.
func TestPowerCut(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("needs strace, which make deps installs, to see all that is written")
	}
	dir := t.TempDir()
	path, trace := filepath.Join(dir, "data", "store.db"), filepath.Join(dir, "trace")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := child(t, "script", path)
	cmd.Args = append([]string{"strace", "-f", "-qq", "-xx", "-s", "4000000", "-o", trace,
		"-e", "trace=openat,write,pwrite64,fsync,fdatasync,ftruncate,rename,renameat,renameat2,unlink,unlinkat,close"}, cmd.Args...)
	cmd.Path, _ = exec.LookPath("strace")
	if out, err := cmd.Output(); err != nil || !strings.HasSuffix(string(out), fmt.Sprintf("step %d\n", scriptSteps-1)) {
		t.Fatalf("%v\n%s", err, out)
	}
	calls, err := readTrace(trace)
	if err != nil {
		t.Fatal(err)
	}
	sc := newScript()
	want := sc.expected(t)

	stride := 9
	if os.Getenv("SUBLET_CRASH_CYCLES") != "" {
		stride = 1
	}
	d := newDisk(filepath.Dir(path))
	r := rand.New(rand.NewPCG(3, 9))
	acked, cuts, opened := -1, 0, 0
	for n, c := range calls {
		if line, ok := d.run(c); ok {
			if line == "open\n" {
				acked = 0
			} else if _, err := fmt.Sscanf(line, "step %d", &acked); err == nil {
				acked++
			}
		}
		if n%stride != 0 && n != len(calls)-1 {
			continue
		}
		for _, mode := range cutModes {
			cuts++
			image := d.cut(r, mode)
			into := filepath.Join(dir, fmt.Sprint("cut-", cuts))
			if err := image.write(into); err != nil {
				t.Fatal(err)
			}
			ok, err := reopenAfterCut(t, filepath.Join(into, "store.db"), sc.clock, want, acked)
			if err != nil {
				t.Fatalf("cut %d (call %d of %d: %s, %s), step %d acknowledged: %v", cuts, n, len(calls), c, mode, acked, err)
			}
			if ok {
				opened++
			}
			if err := os.RemoveAll(into); err != nil {
				t.Fatal(err)
			}
		}
	}
	if acked != scriptSteps || opened < cuts/2 {
		t.Errorf("the trace has %d of %d steps; %d of %d cuts left a store", acked, scriptSteps, opened, cuts)
	}
	t.Logf("%d system calls, %d power cuts", len(calls), cuts)
}

// reopenAfterCut opens what a cut has left, and says whether there was a store
// at all: there need not be before its first Open has returned.
func reopenAfterCut(t *testing.T, path string, clock *fakeClock, want []string, acked int) (bool, error) {
	if _, err := os.Stat(path); err != nil && acked < 0 {
		return false, nil
	}
	s, err := Open(path, Options{Clock: clock, NoSync: true, pace: scriptPace})
	if err != nil {
		return false, err
	}
	defer s.Close()
	var got string
	err = s.view(t.Context(), func(snap snapshot) error {
		res, err := snap.read(Read{Range: everything()})
		if err == nil {
			got = fmt.Sprint(snap.head.rev, snap.head.compacted, snap.head.sizes[bucketLease-bucketCur], show(res.KVs))
		}
		return err
	})
	if err != nil {
		return false, err
	}
	acked = max(acked, 0)
	if got != want[acked] && got != want[min(acked+1, len(want)-1)] {
		return false, fmt.Errorf("what is there is neither the last step nor the next\n got %.300s\nwant %.300s", got, want[acked])
	}
	verify(t, s)
	return true, s.put("after", "the cut")
}
