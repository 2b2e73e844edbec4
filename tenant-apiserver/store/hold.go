package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// Hold keeps everybody, this process included, from opening the store at path
// until it is closed, and whoever does the same for a folder from doing so at the
// same time. It does not wait, does not look at what the file holds, and changes
// nothing. Error: ErrInUse.
func Hold(path string) (io.Closer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("hold store: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		if info, statErr := f.Stat(); statErr == nil {
			err = fmt.Errorf("%w by %s", ErrInUse, lockHolder(info))
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("hold store %s: %w", path, err), f.Close())
	}
	return f, nil
}
