package cell

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// record is what is kept of a tenant that sleeps, in its directory, so that it goes
// on sleeping when its cell is started again.
type record struct {
	Tenant Tenant    `json:"tenant"`
	Store  storeFile `json:"store"`
	Since  time.Time `json:"since"`
	Due    time.Time `json:"due,omitzero"` // when it is to be woken; zero: never
	Seen   Seen      `json:"seen"`
}

// storeFile identifies the content of a store's file: another one, put in its place
// from a backup, say, has other things to do.
type storeFile struct {
	Inode uint64    `json:"inode"`
	Size  int64     `json:"size"`
	Wrote time.Time `json:"wrote"`
}

func lookAt(dir string) (storeFile, error) {
	info, err := os.Stat(storePath(dir))
	if err != nil {
		return storeFile{}, fmt.Errorf("look at the store: %w", err)
	}
	f := storeFile{Size: info.Size(), Wrote: info.ModTime()}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		f.Inode = s.Ino
	}
	return f, nil
}

func (f storeFile) equal(o storeFile) bool {
	return f.Inode == o.Inode && f.Size == o.Size && f.Wrote.Equal(o.Wrote)
}

// asleepPath returns where the record is in a tenant's directory.
func asleepPath(dir string) string { return filepath.Join(dir, "asleep") }

// save writes the record as a whole. The store must be closed.
func (r *record) save(dir string) (err error) {
	if r.Store, err = lookAt(dir); err != nil {
		return err
	}
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode the record of a tenant that sleeps: %w", err)
	}
	if err := replace(asleepPath(dir), data); err != nil {
		return fmt.Errorf("record that the tenant sleeps: %w", err)
	}
	return nil
}

// recorded returns the record of a tenant that slept when its cell ended, nil when it
// did not, or when something has changed since: then it has to run.
func recorded(dir string, t Tenant) (*record, error) {
	data, err := os.ReadFile(asleepPath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find out whether the tenant sleeps: %w", err)
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, nil // a crash cut it short: it only ever means "do not start"
	}
	now, err := lookAt(dir)
	if err != nil || !r.Store.equal(now) || !r.Tenant.sameBut(t) || r.Tenant.CAs != t.CAs {
		return nil, nil
	}
	return &r, nil
}

// forgetRecord removes the record for good: from now on the tenant is to run.
func forgetRecord(dir string) error {
	err := os.Remove(asleepPath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("forget that the tenant slept: %w", err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("forget that the tenant slept: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("forget that the tenant slept: %w", err)
	}
	return nil
}
