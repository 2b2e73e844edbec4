package cell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/store"
	"sublet.dev/tenant-apiserver/store/backup"
)

// ErrNotHosted is returned for a tenant that the cell does not host.
var ErrNotHosted = errors.New("the cell does not host this tenant")

// ErrNoFile is returned for a tenant whose cluster is kept in an etcd.
var ErrNoFile = errors.New("the tenant's cluster is kept in an etcd, not in a file: back it up with etcd's own tools")

// errStopped is returned to whoever asked for something of a tenant that is ending.
var errStopped = errors.New("the tenant is being stopped")

// task is work on a tenant's store while nothing has it open.
type task struct {
	what string // for the status, while it lasts
	do   func() error
	done chan error // has room for one
}

// offline runs do in the tenant's own goroutine while its control plane is stopped,
// and starts that again. It returns what do returned. When ctx ends first, do goes
// on; it must heed its own context.
func (h *hosted) offline(ctx context.Context, what string, do func() error) error {
	t := &task{what: what, do: do, done: make(chan error, 1)}
	select {
	case h.tasks <- t:
	case <-h.done:
		return errStopped
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-t.done:
		return err
	case <-h.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-t.done:
		return err
	default:
		return errStopped
	}
}

// perform does what was asked for while the control plane ran, if anything was.
func (h *hosted) perform() bool {
	t := h.task
	if t == nil {
		return false
	}
	h.task = nil
	if h.ctx.Err() != nil {
		t.done <- errStopped
		return false
	}
	h.set(Starting, "", t.what)
	t.done <- t.do()
	return true
}

// WithStore calls f with the tenant's store: the one that its control plane has
// open, which goes on meanwhile, or else its file, which nobody opens until f
// returns. Errors: ErrNotHosted, ErrNoFile, those of opening the file, and
// f's.
func (c *Cell) WithStore(ctx context.Context, id tenant.ID, f func(*store.Store) error) error {
	h, err := c.find(id)
	if err != nil {
		return err
	}
	if _, err := c.settled(ctx, h); err != nil {
		return err
	}
	if s := h.file(); s != nil {
		return f(s)
	}
	if h.inEtcd() {
		return ErrNoFile
	}
	return h.offline(ctx, "Its store is being looked at.", func() (err error) {
		path := storePath(c.config.Dir(id))
		if _, err := os.Stat(path); err != nil { // opening would make it
			return fmt.Errorf("%w: %w", errStoreMissing, err)
		}
		s, err := store.Open(path, store.Options{ID: string(id)})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.Close()) }()
		return f(s)
	})
}

// RestoreStore replaces the tenant's store by a backup of the same tenant. The
// control plane goes on while the backup is read and verified and a new store is
// made of it, and is then restarted on that; the tenant's pods go on. See
// backup.Prepare for what is verified and what is kept.
func (c *Cell) RestoreStore(ctx context.Context, id tenant.ID, r io.Reader) (backup.Result, error) {
	h, err := c.find(id)
	if err != nil {
		return backup.Result{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(h.ctx, cancel)()
	if _, err := c.settled(ctx, h); err != nil {
		return backup.Result{}, err
	}
	res, err := h.restore(ctx, r)
	if err != nil {
		return res, fmt.Errorf("tenant %s: %w", h.tenant.Name, err)
	}
	h.log.Info("the store was restored from a backup", "backup", res.Header.Time, "revision", res.Revision, "before", res.Before, "kept", res.Kept)
	_, err = c.settled(ctx, h)
	return res, err
}

const restoring = "Its store is being restored from a backup."

func (h *hosted) restore(ctx context.Context, r io.Reader) (res backup.Result, err error) {
	if h.inEtcd() {
		return res, ErrNoFile
	}
	target := backup.Target{Path: storePath(h.cell.config.Dir(h.tenant.ID)), Tenant: string(h.tenant.ID)}
	// What has begun offline ends there, whether anybody waits or not.
	wait := context.WithoutCancel(ctx)
	s := h.file()
	if s == nil {
		err = h.offline(wait, restoring, func() (err error) {
			res, err = backup.Restore(ctx, r, target)
			return err
		})
		return res, err
	}
	st, err := s.Stats(ctx)
	if err != nil {
		return res, err
	}
	target.Running = st.Revision
	p, err := backup.Prepare(ctx, r, target)
	if err != nil {
		return res, err
	}
	began := false
	err = h.offline(wait, restoring, func() (err error) {
		began = true
		res, err = p.Commit(ctx)
		return err
	})
	if !began {
		err = errors.Join(err, p.Discard())
	}
	return res, err
}

// file returns the store that the tenant's control plane has open, if that runs
// and its store is a file.
func (h *hosted) file() *store.Store {
	if api := h.api.Load(); api != nil {
		return api.File()
	}
	return nil
}

// inEtcd says whether the tenant's cluster is kept in an etcd.
func (h *hosted) inEtcd() bool { return len(h.tenant.Etcd.Endpoints) > 0 }

func (c *Cell) find(id tenant.ID) (*hosted, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.hosted[id]; h != nil {
		return h, nil
	}
	return nil, fmt.Errorf("%w: %s", ErrNotHosted, id)
}
