package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
)

// shrinkTx bounds one transaction of a copy without free pages.
const shrinkTx = 8 << 20

// Shrunk is how large a file was and is, in bytes.
type Shrunk struct {
	Before int64 `json:"before"`
	After  int64 `json:"after"`
}

// ShrinkFile rewrites the closed store at path into a file without free pages,
// checks that, and puts it in the old one's place in one step: a crash leaves
// either. Everything stays, the history and the revisions included. Errors: those
// of [CheckFile], and ErrCorrupt for a damaged file, which is left alone.
func ShrinkFile(path string) (Shrunk, error) {
	s, err := shrinkFile(path, shrunkPath(path))
	if err != nil {
		return Shrunk{}, fmt.Errorf("shrink store %s: %w%s", path, err, advice(err))
	}
	return s, nil
}

func shrinkFile(path, tmp string) (s Shrunk, err error) {
	if err := removeIfThere(tmp); err != nil {
		return s, err
	}
	// Under the old file's lock until the new one is in its place.
	err = readClosed(path, func(db *bolt.DB) error {
		err := db.View(func(tx *bolt.Tx) error { _, err := checkContents(tx); return err })
		if err != nil {
			return err
		}
		if s.Before, err = fileSize(path); err != nil {
			return err
		}
		if err := copyInto(tmp, db, s.Before); err != nil {
			return err
		}
		if s.After, err = fileSize(tmp); err != nil {
			return err
		}
		if err := os.Rename(tmp, path); err != nil {
			return err
		}
		return syncDir(filepath.Dir(path))
	})
	if err != nil {
		if rmErr := os.Remove(tmp); !errors.Is(rmErr, fs.ErrNotExist) {
			err = errors.Join(err, rmErr)
		}
	}
	return s, err
}

// copyInto writes everything of db to a new file, and checks that.
func copyInto(path string, db *bolt.DB, size int64) error {
	copied, err := bolt.Open(path, 0o600, boltOptions(Options{}.withDefaults(), size, nil))
	if err != nil {
		return err
	}
	copied.AllocSize = allocSize
	err = bolt.Compact(copied, db, shrinkTx)
	if err == nil {
		err = copied.View(func(tx *bolt.Tx) error { _, err := checkContents(tx); return err })
	}
	return errors.Join(err, copied.Close())
}

func fileSize(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
