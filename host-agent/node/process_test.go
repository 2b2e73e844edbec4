package node

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// sleeper starts a recorded process that ends with the test.
func sleeper(t *testing.T, file string) *process {
	t.Helper()
	p, err := start(exec.Command("sleep", "infinity"), file, "build-1", func(int) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if err := errors.Join(p.stop(ctx), p.close()); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestProcessIsFoundByItsRecord(t *testing.T) {
	file := filepath.Join(t.TempDir(), "p.json")
	if _, err := find(file); !errors.Is(err, errNotRunning) {
		t.Fatalf("without a record: %v", err)
	}
	p := sleeper(t, file)
	found, err := find(file)
	if err != nil {
		t.Fatal(err)
	}
	defer found.close()
	if found.record != p.record || found.Build != "build-1" {
		t.Errorf("found %+v, started %+v", found.record, p.record)
	}
	if err := found.stop(limit(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := find(file); !errors.Is(err, errNotRunning) {
		t.Errorf("after its end: %v", err)
	}
}

// A number that was given to another process must not make it ours.
func TestProcessIsNoStranger(t *testing.T) {
	file := filepath.Join(t.TempDir(), "p.json")
	p := sleeper(t, file)
	for what, change := range map[string]func(*record){
		"another start": func(r *record) { r.Started-- },
		"another boot":  func(r *record) { r.Boot = "before" },
	} {
		r := p.record
		change(&r)
		raw, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := find(file); !errors.Is(err, errNotRunning) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestProcessRecordThatCannotBeRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "p.json")
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := find(file); err == nil || errors.Is(err, errNotRunning) {
		t.Errorf("an unreadable record passed for none: %v", err)
	}
}

func TestProcessThatMayNotEnterIsNotLeftRunning(t *testing.T) {
	refused := errors.New("refused")
	file := filepath.Join(t.TempDir(), "p.json")
	var pid int
	_, err := start(exec.Command("sleep", "infinity"), file, "", func(p int) error { pid = p; return refused })
	if !errors.Is(err, refused) {
		t.Fatal(err)
	}
	if _, err := startTime(pid); err == nil {
		t.Errorf("process %d goes on", pid)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("it was recorded")
	}
}
