package supervise_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sublet.dev/cmd/sublet/internal/supervise"
)

// TestMain runs the test binary as the supervised child when the environment says so.
func TestMain(m *testing.M) {
	if dir := os.Getenv("SUPERVISE_CHILD"); dir != "" {
		os.Exit(child(dir, os.Getenv("SUPERVISE_MODE"), os.Getenv("SUPERVISE_BUILD")))
	}
	os.Exit(m.Run())
}

// child claims its slot, notes that it started, and waits for SIGTERM.
func child(dir, mode, build string) int {
	if mode == "fail" {
		fmt.Fprintln(os.Stderr, "the last words")
		return 7
	}
	if mode == "fail and log" {
		fmt.Fprintln(os.Stderr, "exe: the error")
		fmt.Fprintln(os.Stderr, "what was logged after it")
		return 7
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	c, err := supervise.Take(supervise.SlotIn(dir, "kid"), build)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if mode == "stubborn" {
		signal.Ignore(syscall.SIGTERM)
		select {}
	}
	<-ctx.Done()
	if err := os.WriteFile(filepath.Join(dir, "ended-well"), nil, 0o600); err != nil {
		return 1
	}
	if err := c.Release(); err != nil {
		return 1
	}
	return 0
}

func spec(t *testing.T, dir, mode, build string) supervise.Spec {
	t.Helper()
	return supervise.Spec{
		Slot: supervise.SlotIn(dir, "kid"), Build: build, Argv: []string{"/proc/self/exe"},
		Env:   append(os.Environ(), "SUPERVISE_CHILD="+dir, "SUPERVISE_MODE="+mode, "SUPERVISE_BUILD="+build),
		Log:   filepath.Join(dir, "kid.log"),
		Grace: 20 * time.Second, Logger: slog.New(slog.DiscardHandler),
	}
}

// running keeps a spec running until stop is called.
func running(t *testing.T, s supervise.Spec) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- supervise.Run(ctx, s) }()
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}
	t.Cleanup(func() { _ = stop() })
	return stop
}

// holder waits for a live holder of the slot other than not.
func holder(t *testing.T, s supervise.Slot, not int) supervise.Record {
	t.Helper()
	for t.Context().Err() == nil {
		r, alive, err := s.Holder()
		if err != nil {
			t.Fatal(err)
		}
		if alive && r.PID != not {
			return r
		}
		<-time.After(5 * time.Millisecond)
	}
	t.Fatal("no holder")
	return supervise.Record{}
}

func TestRestartsWhatIsKilled(t *testing.T) {
	dir := t.TempDir()
	s := spec(t, dir, "", "b1")
	stop := running(t, s)
	first := holder(t, s.Slot, 0)
	if err := syscall.Kill(first.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second := holder(t, s.Slot, first.PID)
	if second.PID == first.PID {
		t.Fatal("not restarted")
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "ended-well")); err != nil {
		t.Fatalf("the child was not asked to end: %v", err)
	}
	if _, alive, err := s.Slot.Holder(); alive || err != nil {
		t.Fatalf("alive=%v err=%v after stop", alive, err)
	}
}

// An orphan (its supervisor was killed) is imitated by a child that this test starts directly.
func orphan(t *testing.T, s supervise.Spec) supervise.Record {
	t.Helper()
	p, err := os.StartProcess(s.Argv[0], s.Argv, &os.ProcAttr{Env: s.Env, Files: []*os.File{nil, os.Stdout, os.Stderr}})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = p.Wait() }() // reap it whenever it ends
	t.Cleanup(func() { _ = p.Kill() })
	return holder(t, s.Slot, 0)
}

func TestAdoptsTheSameBuild(t *testing.T) {
	dir := t.TempDir()
	s := spec(t, dir, "", "b1")
	old := orphan(t, s)
	stop := running(t, s)
	// The supervisor restarts an adopted process when it dies: proof that it watches it.
	if err := syscall.Kill(old.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	holder(t, s.Slot, old.PID)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

func TestAdoptedIsStoppedInTheEnd(t *testing.T) {
	dir := t.TempDir()
	s := spec(t, dir, "", "b1")
	orphan(t, s)
	logged := make(chan string, 16)
	s.Logger = slog.New(slog.NewTextHandler(lineWriter(logged), nil))
	stop := running(t, s)
	for line := range logged {
		if strings.Contains(line, "adopted") {
			break
		}
		if strings.Contains(line, "started") {
			t.Fatal("started a second process")
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if _, alive, err := s.Slot.Holder(); alive || err != nil {
		t.Fatalf("alive=%v err=%v after stop", alive, err)
	}
}

func TestReplacesAnotherBuild(t *testing.T) {
	dir := t.TempDir()
	old := orphan(t, spec(t, dir, "", "b1"))
	s := spec(t, dir, "", "b2")
	running(t, s)
	if r := holder(t, s.Slot, old.PID); r.Build != "b2" {
		t.Fatalf("build %q runs", r.Build)
	}
}

func TestGivesUp(t *testing.T) {
	for mode, says := range map[string]string{"fail": "exit status 7: the last words", "fail and log": "exit status 7: exe: the error"} {
		s := spec(t, t.TempDir(), mode, "b1")
		s.Tries = 2
		err := supervise.Run(t.Context(), s)
		var gaveUp *supervise.GaveUpError
		if !errors.As(err, &gaveUp) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: Run = %v", mode, err)
		}
	}
}

func TestKillsTheStubborn(t *testing.T) {
	s := spec(t, t.TempDir(), "stubborn", "b1")
	s.Grace = 50 * time.Millisecond
	stop := running(t, s)
	holder(t, s.Slot, 0)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if _, alive, err := s.Slot.Holder(); alive || err != nil {
		t.Fatalf("alive=%v err=%v after stop", alive, err)
	}
}

func TestTakeNamesTheHolder(t *testing.T) {
	dir := t.TempDir()
	slot := supervise.SlotIn(dir, "kid")
	r := orphan(t, spec(t, dir, "", "b1"))
	_, err := supervise.Take(slot, "b1")
	var held *supervise.HeldError
	if !errors.As(err, &held) || held.Holder.PID != r.PID || !strings.Contains(err.Error(), strconv.Itoa(r.PID)) {
		t.Fatalf("Take = %v", err)
	}
}

// A record whose process id now belongs to somebody else must not be believed.
func TestReusedProcessID(t *testing.T) {
	dir := t.TempDir()
	slot := supervise.SlotIn(dir, "kid")
	c, err := supervise.Take(slot, "b1")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(slot.Record)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Release(); err != nil {
		t.Fatal(err)
	}
	forged := strings.Replace(string(data), `"startTicks":`, `"startTicks":1`, 1)
	if err := os.WriteFile(slot.Record, []byte(forged), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, _, err := slot.Find(); p != nil || err != nil {
		t.Fatalf("Find = %v, %v; want nothing", p, err)
	}
	if err := os.WriteFile(slot.Record, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := slot.Find(); err == nil {
		t.Fatal("junk was believed")
	}
}

func TestBuild(t *testing.T) {
	a, err := supervise.Build()
	if err != nil || a == "" {
		t.Fatalf("Build = %q, %v", a, err)
	}
}

type lineWriter chan<- string

func (w lineWriter) Write(p []byte) (int, error) { w <- string(p); return len(p), nil }
