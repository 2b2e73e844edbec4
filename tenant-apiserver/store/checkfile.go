package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	bolt "go.etcd.io/bbolt"
)

// CheckFile looks through the closed store at path without changing it: the
// pages, the number of entries of each bucket, and what [Check] looks at. Damage
// is told in the report. An error says that nothing could be looked at: ErrInUse,
// ErrForeign, ErrNewerFormat, or that of the disk.
func CheckFile(ctx context.Context, path string) (Report, error) {
	r, err := checkFile(ctx, path)
	if errors.Is(err, ErrCorrupt) {
		r.Problems, err = append(r.Problems, plain(err.Error())), nil
	}
	if err != nil {
		return r, fmt.Errorf("check store %s: %w%s", path, err, advice(err))
	}
	return r, nil
}

func checkFile(ctx context.Context, path string) (Report, error) {
	var r Report
	err := readClosed(path, func(db *bolt.DB) error {
		return db.View(func(tx *bolt.Tx) error {
			if _, err := checkFileOnly(tx); err != nil {
				return err
			}
			snap, err := withLog(path, tx)
			if err != nil {
				return err
			}
			c := &Check{}
			defer func() { r = c.report }()
			for c.bucket < len(counted) && len(c.report.Problems) < maxProblems {
				if err := errors.Join(ctx.Err(), c.step(snap, sliceEntries)); err != nil {
					return err
				}
			}
			if len(c.report.Problems) == 0 {
				err = snap.checkAll() // counts
			}
			return err
		})
	})
	return r, err
}

// readClosed runs f on the file at path, which nobody else has open and which
// stays as it is.
func readClosed(path string, f func(*bolt.DB) error) error {
	file, err := os.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%w: it is not a regular file", ErrForeign)
	}
	if err == nil {
		err = lockFile(file, info)
	}
	if err == nil {
		info, err = file.Stat()
	}
	if err == nil {
		err = checkPages(file, info.Size())
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	err = guard(func() error {
		o := boltOptions(Options{}.withDefaults(), info.Size(), file)
		o.ReadOnly = true
		db, err := bolt.Open(path, 0o600, o)
		if err != nil {
			return err
		}
		return errors.Join(f(db), db.Close())
	})
	if closeErr := file.Close(); !errors.Is(closeErr, fs.ErrClosed) {
		err = errors.Join(err, closeErr)
	}
	return err
}
