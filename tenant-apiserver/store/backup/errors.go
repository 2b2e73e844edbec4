package backup

import "errors"

// Errors of reading, wrapped with what was found.
var (
	// ErrNotBackup says that the bytes are something else.
	ErrNotBackup = errors.New("not a backup of Sublet")
	// ErrDamaged says that a backup is cut short or changed. Nothing of it is
	// to be used.
	ErrDamaged = errors.New("backup is damaged")
	// ErrNewerFormat says that a newer release wrote the backup.
	ErrNewerFormat = errors.New("backup has a newer format")
	// ErrOtherTenant refuses to restore one tenant's backup as another's.
	ErrOtherTenant = errors.New("backup of another tenant")
)

// ErrTryAgain says that the store went on too far meanwhile: its history was
// compacted past the backup's revision, which takes minutes, or it outran a restore.
// The next try begins at a later revision.
var ErrTryAgain = errors.New("the store went on too far meanwhile: try again")
