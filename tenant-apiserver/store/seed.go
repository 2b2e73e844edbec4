package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	bolt "go.etcd.io/bbolt"
)

// Seed makes an empty store at path, which must not exist, whose last revision
// is revision and which has no history before: what is written to it comes
// after, and whoever asks for revisions up to it gets ErrCompacted. It is how a
// store that takes another's place never goes back in time.
func Seed(path string, o Options, revision int64) error {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return err
	}
	if revision < 1 {
		return fmt.Errorf("seed store %s: revision %d is not positive", path, revision)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("seed store %s: %w", path, fs.ErrExist)
	}
	if err := createFile(path, o); err != nil {
		return fmt.Errorf("seed store %s: %w", path, err)
	}
	if err := setRevision(path, o, revision); err != nil {
		return errors.Join(fmt.Errorf("seed store %s: %w", path, err), os.Remove(path))
	}
	return nil
}

// setRevision writes the head of a store that nothing was written to yet.
func setRevision(path string, o Options, revision int64) error {
	db, err := bolt.Open(path, 0o600, boltOptions(o, 0, nil))
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		h, err := readHead(tx.Bucket(bucketMeta.name()))
		if err != nil {
			return err
		}
		h.rev, h.compacted, h.swept = revision, revision, pos{rev: revision}
		return putHead(tx, h)
	})
	return errors.Join(err, db.Close())
}
