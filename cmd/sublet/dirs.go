package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"sublet.dev/cmd/sublet/internal/supervise"
	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/cell"
)

// format is the layout of the data directory that this program reads and writes.
const format = 1

// maxDataDir is the longest path of a data directory: the path of a unix socket
// has 107 bytes at most (unix(7)), and the longest of ours takes 30 below it.
const maxDataDir = 107 - 30

// dataDir is the absolute path of the directory with all of Sublet's state:
//
//	lock, version, admin.kubeconfig, log/, run/
//	server/{host.db,pki/,golden/,cells/<name>.kubeconfig,tenants/<uid>/{store.db,pki/}}
//	server/keys/{host,<uid>}.json   what the stores are encrypted with
//	agent/                     the agent's own
type dataDir string

func (d dataDir) path(elem ...string) string {
	return filepath.Join(append([]string{string(d)}, elem...)...)
}

func (d dataDir) admin() string                  { return d.path("admin.kubeconfig") }
func (d dataDir) log(process string) string      { return d.path("log", process+".log") }
func (d dataDir) hostStore() string              { return d.path("server", "host.db") }
func (d dataDir) hostPKI() string                { return d.path("server", "pki") }
func (d dataDir) golden() string                 { return d.path("server", "golden") }
func (d dataDir) cellConfig(c string) string     { return d.path("server", "cells", c+".kubeconfig") }
func (d dataDir) tenant(id tenant.ID) string     { return d.path("server", "tenants", string(id)) }
func (d dataDir) tenantKeys(id tenant.ID) string { return cell.PKIDir(d.tenant(id)) }
func (d dataDir) hostStoreKeys() string          { return d.path("server", "keys", "host.json") }
func (d dataDir) storeKeys(id tenant.ID) string  { return d.path("server", "keys", string(id)+".json") }
func (d dataDir) serverSocket() string           { return d.path("run", "server.sock") }
func (d dataDir) cellSocket(c string) string     { return d.path("run", c+".sock") }
func (d dataDir) tenantSocket(id tenant.ID) string {
	return d.path("run", "t", id.Short()+".sock")
}

// ready is the file in which a process says, with its process id, that it has
// started up.
func (d dataDir) ready(process string) string { return d.path("run", process+".ready") }

// slot is where a process of that name is found.
func (d dataDir) slot(process string) supervise.Slot { return supervise.SlotIn(d.path("run"), process) }

// upSlot is the slot of `sublet up`, the lock of the whole directory.
func (d dataDir) upSlot() supervise.Slot {
	return supervise.Slot{Name: "up", Lock: d.path("lock"), Record: d.path("run", "up.pid")}
}

// ours are the entries of a data directory, in the order in which to remove them:
// what says that it is one comes last.
var ours = []string{"admin.kubeconfig", "agent", "server", "registries", "log", "run", "lock", "version"}

type versionFile struct {
	Format int `json:"format"`
}

// errNoDataDir means that the directory does not exist, or is empty.
var errNoDataDir = errors.New("there is no Sublet in this data directory")

// check returns nil when the directory is one of ours that this program can use.
// It returns errNoDataDir when there is none yet.
func (d dataDir) check() error {
	data, err := os.ReadFile(d.path("version"))
	if errors.Is(err, fs.ErrNotExist) {
		entries, err := os.ReadDir(string(d))
		if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
			return fmt.Errorf("%s: %w", d, errNoDataDir)
		}
		if err != nil {
			return fmt.Errorf("read the data directory: %w", err)
		}
		return fmt.Errorf("%s is not a data directory of Sublet: it has files (%s, …) and no file named version; give another directory with --data-dir", d, entries[0].Name())
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("the data directory %s is root's: run sublet with sudo", d)
	}
	if err != nil {
		return fmt.Errorf("read the data directory: %w", err)
	}
	var v versionFile
	if err := json.Unmarshal(data, &v); err != nil || v.Format < 1 {
		return fmt.Errorf("%s says nothing that this sublet understands: it is damaged, or the directory is not Sublet's; give another directory with --data-dir", d.path("version"))
	}
	if v.Format > format {
		return fmt.Errorf("the data directory %s has format %d, and this sublet (%s) knows format %d: use the newer sublet that wrote it, or another directory", d, v.Format, version, format)
	}
	return nil
}

// used says whether a machine was once started with the directory: a start that
// failed leaves only logs. A host that lost its store, but not its tenants, is an
// error: a new store would know none of them.
func (d dataDir) used() (bool, error) {
	_, err := os.Stat(d.hostStore())
	if !errors.Is(err, fs.ErrNotExist) {
		return true, err
	}
	tenants, err := os.ReadDir(d.path("server", "tenants"))
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && len(tenants) == 0:
		return false, nil
	case err != nil:
		return true, fmt.Errorf("read the tenants' directory: %w", err)
	}
	return true, fmt.Errorf("%s is missing, but %s has tenants: put the host's store back from a backup, or remove everything with `sublet down --purge`",
		d.hostStore(), d.path("server", "tenants"))
}

// usable is check for those who make sockets in the directory.
func (d dataDir) usable() error {
	if len(d) > maxDataDir {
		return usageErrorf("the path of the data directory, %s, is too long for sockets below it: use one of at most %d characters", d, maxDataDir)
	}
	return d.check()
}

// create makes the directory unless it is there, and checks it.
func (d dataDir) create() error {
	err := d.usable()
	if err != nil && !errors.Is(err, errNoDataDir) {
		return err
	}
	if err != nil {
		if err := d.writeVersion(); err != nil {
			return err
		}
	}
	for _, sub := range []string{"log", "run", "run/t", "server", "server/cells", "server/keys", "server/tenants", "agent"} {
		if err := os.MkdirAll(d.path(sub), 0o700); err != nil {
			return fmt.Errorf("make the data directory: %w", err)
		}
	}
	return nil
}

func (d dataDir) writeVersion() error {
	data, err := json.Marshal(versionFile{Format: format})
	if err != nil {
		return fmt.Errorf("encode the version file: %w", err)
	}
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	return writeFile(d.path("version"), append(data, '\n'))
}

// writeFile replaces a file that only root may read, as a whole.
func writeFile(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(tmp.Name()))
	}
	return nil
}
