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

// ErrTryAgain says that the store's history was compacted while the backup was
// being taken, which takes minutes; the next try begins at a later revision.
var ErrTryAgain = errors.New("the store was compacted meanwhile: take the backup again")
