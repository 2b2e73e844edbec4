package cell

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// errStoreMissing means that a tenant which has run before has no store.
var errStoreMissing = errors.New("the store is missing")

// storePath returns where the store is in a tenant's directory; startedPath the
// file that says that there has been one.
func storePath(dir string) string   { return filepath.Join(dir, "store.db") }
func startedPath(dir string) string { return filepath.Join(dir, "started") }

// HasRun says whether a directory is one of a tenant that has run.
func HasRun(dir string) bool {
	ran, err := hasStarted(dir)
	return ran && err == nil
}

// hasStarted says whether the tenant has run before.
func hasStarted(dir string) (bool, error) {
	_, err := os.Stat(startedPath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("find out whether the tenant has run before: %w", err)
	}
	return true, nil
}

// checkStore refuses to start a tenant that lost its store: it would get a new,
// empty one, and its pods, which that does not know, would be removed.
func checkStore(dir string) error {
	existing, err := hasStarted(dir)
	if err != nil || !existing {
		return err
	}
	_, err = os.Stat(storePath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("open store %s: %w, though the tenant has run before; put it back from a backup, or delete the tenant", storePath(dir), errStoreMissing)
	}
	if err != nil {
		return fmt.Errorf("open store %s: %w", storePath(dir), err)
	}
	return nil
}

// markStarted records that the tenant has a store from now on.
func markStarted(dir string) error {
	if err := os.WriteFile(startedPath(dir), nil, 0o600); err != nil {
		return fmt.Errorf("record that the tenant has run: %w", err)
	}
	return nil
}
