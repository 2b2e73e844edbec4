package keyring

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// format is the layout of the file that this release reads and writes.
const format = 1

// file is what is on disk.
type file struct {
	Format int `json:"format"`
	// Write is the key of new values.
	Write string `json:"write"`
	// Plaintext says that values which are not encrypted are read, too.
	Plaintext bool `json:"plaintext,omitempty"`
	// Remains says that the store's file may have free space that was not overwritten
	// since something was dropped.
	Remains bool  `json:"remains,omitempty"`
	Keys    []key `json:"keys"`
}

// key has either Secret or KMS.
type key struct {
	ID      string    `json:"id"` // "1", "2", …: unique in a file for all time
	Created time.Time `json:"created"`
	Secret  []byte    `json:"secret,omitempty"`
	KMS     *wrapped  `json:"kms,omitempty"`
}

// wrapped is a secret as a KMS returned it.
type wrapped struct {
	KeyID       string            `json:"keyID"`
	Ciphertext  []byte            `json:"ciphertext"`
	Annotations map[string][]byte `json:"annotations,omitempty"`
}

func (f file) find(id string) (key, bool) {
	i := slices.IndexFunc(f.Keys, func(k key) bool { return k.ID == id })
	if i < 0 {
		return key{}, false
	}
	return f.Keys[i], true
}

// next returns the ID of a key that is to be added. The keys are in the order in
// which they were made.
func (f file) next() (string, error) {
	if len(f.Keys) == 0 {
		return "1", nil
	}
	last, err := strconv.Atoi(f.Keys[len(f.Keys)-1].ID)
	if err != nil {
		return "", fmt.Errorf("%w: the last key has the ID %q", ErrCorrupt, f.Keys[len(f.Keys)-1].ID)
	}
	return strconv.Itoa(last + 1), nil
}

func (f file) validate() error {
	if f.Format != format {
		return fmt.Errorf("%w: its format is %d, this release knows %d", ErrCorrupt, f.Format, format)
	}
	before := 0
	for _, k := range f.Keys {
		n, err := strconv.Atoi(k.ID)
		if err != nil || n <= before || strconv.Itoa(n) != k.ID {
			return fmt.Errorf("%w: the key IDs are not ascending numbers", ErrCorrupt)
		}
		before = n
		if (len(k.Secret) == secretBytes) == (k.KMS != nil) {
			return fmt.Errorf("%w: key %s has no secret of %d bytes", ErrCorrupt, k.ID, secretBytes)
		}
	}
	if _, ok := f.find(f.Write); !ok {
		return fmt.Errorf("%w: the key for writing, %q, is not in it", ErrCorrupt, f.Write)
	}
	return nil
}

func readFile(path string) (file, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return file{}, fmt.Errorf("%w: %s", ErrMissing, path)
	}
	if err != nil {
		return file{}, fmt.Errorf("read the keys: %w", err)
	}
	var f file
	if err = json.Unmarshal(data, &f); err != nil {
		err = fmt.Errorf("%w: it is no JSON", ErrCorrupt) // the parser's error may quote a secret
	} else {
		err = f.validate()
	}
	if err != nil {
		return file{}, fmt.Errorf("keys %s: %w; put it back from a backup", path, err)
	}
	return f, nil
}

// write replaces the file as a whole, with mode 0600.
func (f file) write(path string) error {
	data, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the keys: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write the keys: %w", err)
	}
	_, err = tmp.Write(append(data, '\n'))
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write the keys: %w", errors.Join(err, os.Remove(tmp.Name())))
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync the keys' directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync the keys' directory: %w", err)
	}
	return nil
}
