package store

import (
	"errors"
	"fmt"
)

// Errors of Open. They are wrapped with the file, what was found and what to do.
var (
	// ErrCorrupt says that the file is one of ours and is damaged.
	ErrCorrupt = errors.New("store file is damaged")
	// ErrForeign says that the file was not written by this package, or belongs
	// to another tenant than Options.ID.
	ErrForeign = errors.New("not the store file expected here")
	// ErrNewerFormat says that a newer release wrote the file.
	ErrNewerFormat = errors.New("store file has a newer format")
	// ErrInUse says that another process, or another Store of this one, holds
	// the file.
	ErrInUse = errors.New("store file is in use")
)

// Errors of requests. The store goes on working after each of them.
var (
	// ErrClosed is returned once Close was called.
	ErrClosed = errors.New("store is closed")
	// ErrCompacted says that the revision asked for is older than the history kept.
	ErrCompacted = errors.New("revision has been compacted")
	// ErrFutureRevision says that the revision asked for does not exist yet.
	ErrFutureRevision = errors.New("revision is in the future")
	// ErrEmptyKey refuses a request without a key.
	ErrEmptyKey = errors.New("key is empty")
	// ErrTooLarge refuses a request above Options.MaxRequestBytes, or a key
	// longer than MaxKeyBytes.
	ErrTooLarge = errors.New("request is too large")
	// ErrDuplicateKey refuses a transaction that writes one key twice.
	ErrDuplicateKey = errors.New("key is written twice in one transaction")
	// ErrLeaseNotFound says that the lease does not exist, or has ended.
	ErrLeaseNotFound = errors.New("lease not found")
	// ErrLeaseExists refuses to grant a lease under an id that is taken.
	ErrLeaseExists = errors.New("lease exists already")
	// ErrLeaseTTL refuses a time to live that is not positive or is beyond MaxLeaseTTL.
	ErrLeaseTTL = errors.New("lease time to live is out of range")
	// ErrNoSpace says that the disk is full. Nothing of the request was kept.
	ErrNoSpace = errors.New("no space left for the store")
	// ErrQuota is an ErrNoSpace: there may be room on the disk, but not for this
	// store. See Options.QuotaBytes.
	ErrQuota = fmt.Errorf("%w: its quota is used up", ErrNoSpace)
)

// ErrFailed is wrapped by all answers of a store whose disk or file failed. What
// the failed write left on disk is unknown, so the store does nothing more;
// closing and opening it again finds out what is there.
var ErrFailed = errors.New("store failed and must be opened again")
