package store

import (
	"errors"
	"fmt"
	"runtime/debug"
	"syscall"

	bolterrors "go.etcd.io/bbolt/errors"
)

// guard runs f, which reads mapped pages, and turns what bbolt does when it
// meets a bad page, a panic or a fault, into ErrCorrupt.
func guard(f func() error) (err error) {
	old := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(old)
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: bbolt gave up: %v", ErrCorrupt, p)
		}
	}()
	return f()
}

// isNoSpace says whether a commit failed because the disk is full, which bbolt
// survives: nothing of the transaction is reachable.
func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, bolterrors.ErrMaxSizeReached)
}
