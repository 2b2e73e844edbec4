package backup

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// WriteFile makes the file at path with what write writes to it, which must be a
// backup. It gets its name, and is on disk, only after it was read back and
// verified; a failure leaves nothing behind. An existing file is replaced only
// when replace is set.
func WriteFile(path string, replace bool, write func(io.Writer) error) (Header, Footer, error) {
	if !replace {
		if err := absent(path); err != nil {
			return Header{}, Footer{}, err
		}
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".part-*") // mode 0600
	if err != nil {
		return Header{}, Footer{}, fmt.Errorf("write backup %s: %w", path, err)
	}
	h, f, err := writeAndVerify(tmp, write)
	if err == nil {
		err = giveName(tmp.Name(), path, replace)
	}
	if err != nil {
		if rmErr := os.Remove(tmp.Name()); !errors.Is(rmErr, fs.ErrNotExist) {
			err = errors.Join(err, rmErr)
		}
		return h, f, fmt.Errorf("write backup %s: %w", path, err)
	}
	return h, f, nil
}

func absent(path string) error {
	_, err := os.Lstat(path)
	if err == nil {
		return fmt.Errorf("write backup %s: %w", path, fs.ErrExist)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write backup %s: %w", path, err)
	}
	return nil
}

// writeAndVerify fills the file, flushes it, reads it back and closes it.
func writeAndVerify(file *os.File, write func(io.Writer) error) (h Header, f Footer, err error) {
	err = write(file)
	if err == nil {
		err = file.Sync()
	}
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err == nil {
		h, f, err = Verify(file)
	}
	return h, f, errors.Join(err, file.Close())
}

// giveName moves the file to its name; without replace, only while there is none.
func giveName(tmp, path string, replace bool) error {
	if replace {
		if err := os.Rename(tmp, path); err != nil {
			return err
		}
		return syncDir(filepath.Dir(path))
	}
	if err := os.Link(tmp, path); errors.Is(err, fs.ErrExist) {
		return err
	} else if err != nil { // a file system without links
		if err := absent(path); err != nil {
			return err
		}
		return giveName(tmp, path, true)
	}
	return errors.Join(os.Remove(tmp), syncDir(filepath.Dir(path)))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
