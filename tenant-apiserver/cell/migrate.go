package cell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/etcdclient"
	"sublet.dev/tenant-apiserver/migrate"
	"sublet.dev/tenant-apiserver/store"
	"sublet.dev/tenant-apiserver/store/backup"
)

// Moved is what MigrateStore did.
type Moved struct {
	// Already: there was nothing to do, an earlier call had moved it.
	Already bool  `json:"already,omitempty"`
	Keys    int64 `json:"keys"`
	// Before is the last revision where it was, Revision the one where it is.
	Before   int64 `json:"before"`
	Revision int64 `json:"revision"`
	// Kept is the file that the cluster was in.
	Kept string `json:"kept,omitempty"`
}

// MigrateStore stops the tenant's control plane and moves its cluster to an etcd, or
// with a zero EtcdStore to a file. Where it was, it cannot be started any more: the
// tenant fails with ReasonStoreMissing until Put says where it is now. What was
// there is kept. It is idempotent; an error leaves the tenant where it was.
func (c *Cell) MigrateStore(ctx context.Context, id tenant.ID, to EtcdStore) (m Moved, err error) {
	h, err := c.find(id)
	if err != nil {
		return m, err
	}
	if h.tenant.Etcd == to {
		return Moved{Already: true}, nil
	}
	target, err := dial(ctx, to) // before anything is stopped
	if err != nil {
		return m, err
	}
	if target != nil {
		defer func() { err = errors.Join(err, target.Close()) }()
	}
	if _, err := c.settled(ctx, h); err != nil {
		return m, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(h.ctx, cancel)()
	err = h.offline(context.WithoutCancel(ctx), "Its cluster is being moved to another store.", func() (err error) {
		if m, err = h.move(ctx, target); err != nil {
			return err
		}
		return forgetRecord(c.config.Dir(id)) // it would not say where it slept
	})
	if err != nil {
		return m, fmt.Errorf("move tenant %s: %w", h.tenant.Name, err)
	}
	h.log.Info("the cluster was moved to another store", "from", h.tenant.Etcd, "to", to, "keys", m.Keys, "kept", m.Kept)
	return m, nil
}

// dial connects to an etcd; nil for the zero value.
func dial(ctx context.Context, e EtcdStore) (*etcdclient.Etcd, error) {
	c, err := e.Config()
	if err != nil || c == nil {
		return nil, err
	}
	return etcdclient.DialEtcd(ctx, *c)
}

// sideOf returns an etcd as package migrate wants it. The client that it is made of
// holds nothing that e does not.
func sideOf(e *etcdclient.Etcd) migrate.Side {
	c := e.Client()
	return migrate.Side{KV: c.KV, Lease: c.Lease}
}

// move copies the cluster from where it is to an etcd, or to a file if that is nil,
// and gives the place up where it was.
func (h *hosted) move(ctx context.Context, to *etcdclient.Etcd) (m Moved, err error) {
	path, id := storePath(h.cell.config.Dir(h.tenant.ID)), string(h.tenant.ID)
	from, leave, err := h.source(ctx, path, id)
	if err != nil {
		if h.movedTo(ctx, path, id, to) {
			return Moved{Already: true}, nil
		}
		return m, err
	}
	defer func() { err = errors.Join(err, leave.close()) }()
	last, err := from.Stats(ctx)
	if err != nil {
		return m, err
	}
	r, w := io.Pipe()
	taken := make(chan error, 1)
	go func() {
		_, _, err := backup.Take(ctx, from, w, backup.Options{Name: h.tenant.Name})
		taken <- err
		_ = w.CloseWithError(err) // nil: the end
	}()
	m, err = load(ctx, r, backup.Target{Path: path, Tenant: id, Running: last.Revision}, to)
	_ = r.CloseWithError(errors.New("nobody reads on")) // ends Take, if it has not ended
	if takeErr := <-taken; err != nil {
		return m, errors.Join(err, takeErr)
	}
	m.Kept, err = leave.leave(ctx)
	return m, err
}

// load writes a backup to an etcd, or to a file if that is nil.
func load(ctx context.Context, r io.Reader, file backup.Target, to *etcdclient.Etcd) (Moved, error) {
	if to == nil {
		res, err := backup.Restore(ctx, r, file)
		return Moved{Keys: res.Keys, Before: res.Header.Revision, Revision: res.Revision}, err
	}
	b, err := backup.NewReader(r)
	if err != nil {
		return Moved{}, err
	}
	side := sideOf(to)
	res, err := migrate.Load(ctx, b, side, nil)
	return Moved{Keys: res.Keys, Before: b.Header().Revision, Revision: res.Revision}, err
}

// departure is how the place is left that a cluster was moved away from.
type departure struct {
	leave func(context.Context) (kept string, err error)
	close func() error
}

// source opens where the tenant's cluster is.
func (h *hosted) source(ctx context.Context, path, id string) (backup.Source, departure, error) {
	e, err := dial(ctx, h.tenant.Etcd)
	if err != nil {
		return nil, departure{}, err
	}
	if e == nil {
		return fileSource(path, id)
	}
	side := sideOf(e)
	s, err := migrate.NewSource(ctx, side, id)
	if err != nil {
		return nil, departure{}, errors.Join(err, e.Close())
	}
	return s, departure{
		leave: func(ctx context.Context) (string, error) { return "", migrate.Leave(ctx, side, id) },
		close: e.Close,
	}, nil
}

func fileSource(path, id string) (backup.Source, departure, error) {
	if _, err := os.Stat(path); err != nil { // opening would make it
		return nil, departure{}, fmt.Errorf("%w: %w", errStoreMissing, err)
	}
	s, err := store.Open(path, store.Options{ID: id})
	if err != nil {
		return nil, departure{}, err
	}
	return s, departure{
		leave: func(context.Context) (string, error) {
			kept := path + ".migrated-" + time.Now().UTC().Format("20060102T150405Z")
			err := errors.Join(s.Close(), os.Rename(path, kept))
			if rmErr := os.Remove(path + ".ballast"); !errors.Is(rmErr, fs.ErrNotExist) { // see store.Options
				err = errors.Join(err, rmErr)
			}
			if err != nil {
				return "", fmt.Errorf("give the file up: %w", err)
			}
			return kept, syncDir(filepath.Dir(path))
		},
		close: s.Close,
	}, nil
}

// movedTo says whether the cluster is already where it is to go.
func (h *hosted) movedTo(ctx context.Context, path, id string, to *etcdclient.Etcd) bool {
	if to == nil {
		_, err := os.Stat(path)
		return !errors.Is(err, fs.ErrNotExist) && h.inEtcd() && h.left(ctx, id)
	}
	_, err := migrate.NewSource(ctx, sideOf(to), id)
	return err == nil
}

// left says whether the tenant's etcd was given up by an earlier move.
func (h *hosted) left(ctx context.Context, id string) bool {
	e, err := dial(ctx, h.tenant.Etcd)
	if err != nil {
		return false
	}
	gone, err := migrate.Left(ctx, sideOf(e), id)
	return errors.Join(err, e.Close()) == nil && gone
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
