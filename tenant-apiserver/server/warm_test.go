package server

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"sublet.dev/tenant-apiserver/store"
)

func TestWarm(t *testing.T) {
	dir := t.TempDir()
	for name, age := range map[string]time.Duration{".making-old": 2 * leftAfter, ".warming-old": 2 * leftAfter, ".making-young": 0, "other": 2 * leftAfter} {
		path, then := filepath.Join(dir, name), time.Now().Add(-age)
		if err := os.MkdirAll(filepath.Join(path, "pki"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, then, then); err != nil {
			t.Fatal(err)
		}
	}
	// A tenant that comes meanwhile is served, from the same golden store.
	c := scratch(t, "early", 61)
	c.GoldenDir = dir
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := Warm(t.Context(), dir, slog.New(slog.DiscardHandler)); err != nil {
			t.Error(err)
		}
	})
	stop(t, start(t, c))
	wg.Wait()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	left := map[string]bool{}
	for _, e := range entries {
		left[e.Name()] = true
	}
	golden := goldenName
	if len(left) != 3 || !left[golden] || !left[".making-young"] || !left["other"] {
		t.Errorf("left %v", left)
	}
}

func TestWarmGivesUpWithItsContext(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Warm(ctx, dir, slog.New(slog.DiscardHandler)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("left %v, error %v", entries, err)
	}
}

// A store is its tenant's: it is stamped at the first start, and refused to others.
func TestStoreOfAnother(t *testing.T) {
	c := scratch(t, "owner", 62)
	c.ID = "uid-owner"
	stop(t, start(t, c))
	c.ID = "uid-other"
	if s, err := Start(t.Context(), c); !errors.Is(err, store.ErrForeign) {
		if err == nil {
			stop(t, s)
		}
		t.Errorf("another tenant's store: %v", err)
	}
	c.ID = "uid-owner"
	stop(t, start(t, c))
}
