package cell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/server"
	"sublet.dev/tenant-apiserver/store"
	"sublet.dev/tenant-apiserver/store/backup"
)

// ErrNotHosted is returned for a tenant that the cell does not host.
var ErrNotHosted = errors.New("the cell does not host this tenant")

// ErrNoFile is returned for a tenant whose cluster is kept in an etcd.
var ErrNoFile = errors.New("the tenant's cluster is kept in an etcd, not in a file: back it up with etcd's own tools")

// errStopped is returned to whoever asked for something of a tenant that is ending.
var errStopped = errors.New("the tenant is being stopped")

// StorePath returns where the store is in a tenant's directory.
func StorePath(dir string) string { return storePath(dir) }

// CAName is the common name of a tenant's CA.
func CAName(name string) string { return "sublet-tenant-" + name }

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

// ShrinkStore stops the tenant's control plane, rewrites its file without the free
// room in it, and starts it again: see store.ShrinkFile.
func (c *Cell) ShrinkStore(ctx context.Context, id tenant.ID) (s store.Shrunk, err error) {
	h, err := c.find(id)
	if err != nil {
		return s, err
	}
	if h.inEtcd() {
		return s, ErrNoFile
	}
	if _, err := c.settled(ctx, h); err != nil {
		return s, err
	}
	err = h.offline(context.WithoutCancel(ctx), "Its store is being rewritten.", func() (err error) {
		s, err = store.ShrinkFile(storePath(c.config.Dir(id)))
		return err
	})
	if err == nil {
		_, err = c.settled(ctx, h)
	}
	return s, err
}

const restoring = "Its store is being restored from a backup."

// restore prepares a restore, while the control plane goes on if it runs, and then
// exchanges the files.
func (h *hosted) restore(ctx context.Context, r io.Reader) (res backup.Result, err error) {
	if h.inEtcd() {
		return res, ErrNoFile
	}
	target := backup.Target{Path: storePath(h.cell.config.Dir(h.tenant.ID)), Tenant: string(h.tenant.ID)}
	var p *backup.Prepared
	s := h.file()
	if s != nil {
		st, err := s.Stats(ctx)
		if err != nil {
			return res, err
		}
		target.Running = st.Revision
		if p, err = h.prepare(ctx, r, target); err != nil {
			return res, err
		}
	}
	began := false
	// What has begun offline ends there, whether anybody waits or not.
	err = h.offline(context.WithoutCancel(ctx), restoring, func() (err error) {
		began = true
		if p == nil {
			if p, err = h.prepare(ctx, r, target); err != nil {
				return err
			}
		}
		if res, err = p.Commit(ctx); err != nil {
			return err
		}
		// Whatever the tenant slept for, there is work now.
		return forgetRecord(h.cell.config.Dir(h.tenant.ID))
	})
	if !began && p != nil {
		err = errors.Join(err, p.Discard())
	}
	return res, err
}

// prepare makes the new store and makes sure that its values can be read.
func (h *hosted) prepare(ctx context.Context, r io.Reader, target backup.Target) (*backup.Prepared, error) {
	p, err := backup.Prepare(ctx, r, target)
	if err != nil {
		return nil, err
	}
	err = p.Look(func(s *store.Store) error {
		return server.CheckKeys(ctx, s, h.cell.config.keyFile(h.tenant.ID), h.cell.config.KMS)
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the backup cannot be read: %w", err), p.Discard())
	}
	return p, nil
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
