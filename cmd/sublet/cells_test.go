package main

import (
	"os"
	"slices"
	"testing"
)

func TestCellNames(t *testing.T) {
	d := dataDir(t.TempDir())
	if names, err := d.cellNames(); err != nil || len(names) != 0 {
		t.Errorf("without a run directory: %q, %v", names, err)
	}
	if err := os.Mkdir(d.path("run"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{
		"server.pid", "cell-0.pid", "cell-0.lock", "cell-12.pid", "cell-2.sock", // 2 left no record
		"cell-.pid", "cell-01.pid", "cell-x.pid", "cell-99999.pid", // not ours
	} {
		if err := os.WriteFile(d.path("run", file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	names, err := d.cellNames()
	if want := []string{"cell-0", "cell-12"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("%q, %v; want %q", names, err, want)
	}
}
