package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	// lockWait is how long Open waits for a holder that is just going away.
	lockWait = time.Second
	// allocSize is the step in which a file grows; bbolt's 16 MiB are too much
	// for hundreds of small tenants.
	allocSize = 1 << 20
	// initialMmap is address space, not memory: a writer that has to map anew
	// waits for all readers, so small stores never do.
	initialMmap = 1 << 30
	// syncFreelistFrom is the file size from which the list of free pages is
	// written with each commit, since finding it anew takes 0.5 s per GiB.
	syncFreelistFrom = 256 << 20
)

// boltOptions for a file of the given size; open, when not nil, is the file
// itself, already locked.
func boltOptions(o Options, size int64, open *os.File) *bolt.Options {
	return &bolt.Options{
		Timeout:         lockWait,
		NoFreelistSync:  size < syncFreelistFrom,
		FreelistType:    bolt.FreelistMapType,
		InitialMmapSize: initialMmap,
		NoSync:          o.NoSync,
		NoStatistics:    true,
		OpenFile: func(name string, flag int, perm os.FileMode) (*os.File, error) {
			if f := open; f != nil {
				open = nil
				return f, nil
			}
			return os.OpenFile(name, flag, perm)
		},
	}
}

// openFile opens, and makes when absent, the file at path: locked, its pages
// checked. The lock is taken before the check, since a file that another
// process is writing to looks damaged.
func openFile(path string, o Options) (*bolt.DB, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if err := orphaned(path); err != nil {
			return nil, err
		}
		if err := createFile(path, o); err != nil {
			return nil, fmt.Errorf("create: %w", err)
		}
		f, err = os.OpenFile(path, os.O_RDWR, 0)
	}
	if err != nil {
		return nil, err
	}
	db, err := openLocked(f, o)
	if err != nil {
		return nil, errors.Join(err, ignoreClosed(f.Close()))
	}
	if err := removeIfThere(shrunkPath(path)); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func openLocked(f *os.File, o Options) (db *bolt.DB, err error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: it is not a regular file", ErrForeign)
	}
	if err := lockFile(f, info); err != nil {
		return nil, err
	}
	if info, err = f.Stat(); err != nil {
		return nil, err
	}
	if err := checkPages(f, info.Size()); err != nil {
		return nil, err
	}
	err = guard(func() error {
		db, err = bolt.Open(f.Name(), 0o600, boltOptions(o, info.Size(), f))
		return err
	})
	if err != nil {
		return nil, err
	}
	db.AllocSize = allocSize
	return db, nil
}

// ignoreClosed drops the error of closing a file that bbolt closed before.
func ignoreClosed(err error) error {
	if errors.Is(err, fs.ErrClosed) {
		return nil
	}
	return err
}

// lockFile takes the lock that bbolt takes too (on the same open file, which
// makes bbolt's a repetition), to be able to say who holds it.
func lockFile(f *os.File, info fs.FileInfo) error {
	deadline := time.Now().Add(lockWait)
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return fmt.Errorf("lock: %w", err)
		case time.Now().After(deadline):
			return fmt.Errorf("%w by %s", ErrInUse, lockHolder(info))
		}
		<-time.After(lockWait / 20)
	}
}

// lockHolder finds the process that holds a flock on the file, as far as the
// kernel tells.
func lockHolder(info fs.FileInfo) string {
	const unknown = "another process"
	stat, ok := info.Sys().(*syscall.Stat_t)
	locks, err := os.ReadFile("/proc/locks")
	if !ok || err != nil {
		return unknown
	}
	for line := range strings.Lines(string(locks)) {
		// 1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234567 0 EOF
		field := strings.Fields(line)
		if len(field) < 6 || field[1] != "FLOCK" || !strings.HasSuffix(field[5], fmt.Sprintf(":%d", stat.Ino)) {
			continue
		}
		name, err := os.ReadFile(filepath.Join("/proc", field[4], "comm"))
		if err != nil {
			return "process " + field[4]
		}
		return fmt.Sprintf("process %s (%s)", field[4], strings.TrimSpace(string(name)))
	}
	return unknown
}

// createFile makes an empty store at path in one step: a crash leaves either
// no file or a whole one.
func createFile(path string, o Options) error {
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove what an earlier start left: %w", err)
	}
	db, err := bolt.Open(tmp, 0o600, boltOptions(o, 0, nil))
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range bucketNames {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return putHead(tx, newHead(o.ID))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a rename in dir last; bbolt leaves that to its caller.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
