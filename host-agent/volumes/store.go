package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	// granule is what sizes are rounded up to, in bytes.
	granule = 1 << 20
	// smallest is the least size of a volume, in bytes: its journal takes some.
	smallest = 16 << 20
	// reserve is the part of the disk, one in so many bytes, that volumes leave free.
	// The kubelet evicts pods at 3 % (host-agent/node).
	reserve = 20
)

// The states of a volume's file, as its name ends.
const (
	making    = ".tmp" // not whole
	fresh     = ".new" // whole, perhaps not published
	published = ".img"
)

// ErrNoRoom says that the disk has not the room that was asked for.
var ErrNoRoom = errors.New("the node's disk has no room for it")

// ErrInUse says that pods have a volume mounted.
var ErrInUse = errors.New("pods have it mounted")

// Store is the volumes of a node. Its methods may be called at the same time for
// different volumes; for one volume, one at a time.
type Store struct{ dir string }

// Open prepares a store in dir, an absolute path without symbolic links: what a
// killed process had half made is removed.
func Open(dir string) (*Store, error) {
	s := &Store{dir: dir}
	for _, d := range []string{s.images(), s.mounts(), s.skeleton(dataDir)} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("make the directory of volumes: %w", err)
		}
	}
	// Whoever may mount the volume may write to it: only its tenant's pods may.
	if err := os.Chmod(s.skeleton(dataDir), 0o777); err != nil {
		return nil, fmt.Errorf("open the volumes' directory to its users: %w", err)
	}
	half, err := filepath.Glob(filepath.Join(s.images(), "*"+making))
	if err != nil {
		return nil, fmt.Errorf("look for volumes that are half made: %w", err)
	}
	for _, f := range half {
		if err := os.Remove(f); err != nil {
			return nil, fmt.Errorf("remove a volume that is half made: %w", err)
		}
	}
	return s, nil
}

// dataDir is the directory inside a volume that pods see: not its root, where ext4
// keeps lost+found.
const dataDir = "data"

func (s *Store) images() string { return filepath.Join(s.dir, "images") }
func (s *Store) mounts() string { return filepath.Join(s.dir, "mounts") }
func (s *Store) skeleton(parts ...string) string {
	return filepath.Join(append([]string{s.dir, "skeleton"}, parts...)...)
}
func (s *Store) image(name, state string) string { return filepath.Join(s.images(), name+state) }
func (s *Store) mountPoint(name string) string   { return filepath.Join(s.mounts(), name) }

// Path returns what pods see of a volume.
func (s *Store) Path(name string) string { return filepath.Join(s.mountPoint(name), dataDir) }

// Size returns the size that a volume has which must hold so many bytes.
func Size(bytes int64) int64 {
	return max(smallest, (bytes+granule-1)/granule*granule)
}

// file returns the path of a volume's file; an error that is fs.ErrNotExist when
// there is no such volume.
func (s *Store) file(name string) (string, error) {
	if len(validation.IsDNS1123Subdomain(name)) > 0 {
		return "", fmt.Errorf("%q cannot be the name of a volume", name)
	}
	for _, state := range []string{published, fresh} {
		path := s.image(name, state)
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return path, err
		}
	}
	return "", fmt.Errorf("volume %s: %w", name, fs.ErrNotExist)
}

// List returns the names of all volumes, and which of them are not published.
func (s *Store) List() (names []string, unpublished map[string]bool, err error) {
	entries, err := os.ReadDir(s.images())
	if err != nil {
		return nil, nil, fmt.Errorf("list volumes: %w", err)
	}
	unpublished = map[string]bool{}
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), fresh); ok {
			names, unpublished[name] = append(names, name), true
		}
		if name, ok := strings.CutSuffix(e.Name(), published); ok {
			names = append(names, name)
		}
	}
	return names, unpublished, nil
}

// Create makes a volume of at least so many bytes and mounts it. One that is there
// is mounted as it is, so Create can be repeated.
func (s *Store) Create(ctx context.Context, name string, bytes int64) (size int64, err error) {
	path, err := s.file(name)
	if errors.Is(err, fs.ErrNotExist) {
		path = s.image(name, fresh)
		err = s.create(ctx, s.image(name, making), path, Size(bytes))
	}
	if err != nil {
		return 0, err
	}
	if err := s.Mount(ctx, name); err != nil {
		return 0, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return 0, fmt.Errorf("volume %s: %w", name, err)
	}
	return info.Size(), nil
}

// create makes a file system in a file of its own and gives it its name when it is
// whole and on disk.
func (s *Store) create(ctx context.Context, temporary, path string, size int64) (err error) {
	f, err := os.OpenFile(temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("make a volume: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temporary))
		}
	}()
	defer f.Close()
	if err := s.take(f, 0, size); err != nil {
		return err
	}
	// nodiscard: the reserved blocks stay. The inode tables are written at once, not
	// later in the name of whoever uses the machine then.
	if err := run(ctx, "mkfs.ext4", "-q", "-F", "-m", "0", "-e", "remount-ro", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0",
		"-d", s.skeleton(), temporary); err != nil {
		return fmt.Errorf("make a volume's file system: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("flush a volume: %w", err)
	}
	return s.rename(temporary, path)
}

// take reserves the bytes of a file from one size to another.
func (s *Store) take(f *os.File, from, to int64) error {
	var disk unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &disk); err != nil {
		return fmt.Errorf("look for room: %w", err)
	}
	free, all := int64(disk.Bavail)*disk.Bsize, int64(disk.Blocks)*disk.Bsize
	if free-(to-from) < all/reserve {
		return fmt.Errorf("%d MiB: %w", (to-from)>>20, ErrNoRoom)
	}
	err := unix.Fallocate(int(f.Fd()), 0, from, to-from)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EFBIG) {
		return fmt.Errorf("%d MiB: %w", (to-from)>>20, errors.Join(ErrNoRoom, unix.Ftruncate(int(f.Fd()), from)))
	}
	if err != nil {
		return fmt.Errorf("reserve room in %s, whose file system must be able to: %w", s.dir, err)
	}
	return nil
}

func (s *Store) rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return fmt.Errorf("name a volume: %w", err)
	}
	return s.flush()
}

// flush makes what happened to files in the directory of images last.
func (s *Store) flush() error {
	d, err := os.Open(s.images())
	if err != nil {
		return fmt.Errorf("flush the directory of volumes: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("flush the directory of volumes: %w", err)
	}
	return nil
}

// Publish notes that the volume's PersistentVolume exists: from now on only Remove
// removes it. It can be repeated.
func (s *Store) Publish(name string) error {
	err := os.Rename(s.image(name, fresh), s.image(name, published))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("publish volume %s: %w", name, err)
	}
	return s.flush()
}

// Mount mounts a volume; one that is mounted is success. Where another mount namespace
// still has it, both share its file system: over a loop device of its own it would be
// a second one in the same bytes.
func (s *Store) Mount(ctx context.Context, name string) error {
	path, err := s.file(name)
	if err != nil {
		return err
	}
	if at, err := mountedAt(s.mountPoint(name)); err != nil || at != nil {
		return err
	}
	if err := os.MkdirAll(s.mountPoint(name), 0o700); err != nil {
		return fmt.Errorf("make the mount point of volume %s: %w", name, err)
	}
	device, err := holdLoop(path)
	if err != nil {
		return fmt.Errorf("mount volume %s: %w", name, err)
	}
	options := []string{"nosuid", "nodev", "noatime"}
	if device != nil {
		defer device.Close()
		m := mount.Mount{Type: "ext4", Source: device.Name(), Options: options}
		if err := m.Mount(s.mountPoint(name)); err != nil {
			return fmt.Errorf("mount volume %s: %w", name, err)
		}
		return nil
	}
	// "loop" takes a device that the kernel frees with the last mount.
	m := mount.Mount{Type: "ext4", Source: path, Options: append(options, "loop")}
	if err = m.Mount(s.mountPoint(name)); err == nil {
		return nil
	}
	// e2fsck's exit code 1: errors were corrected (e2fsck(8)).
	if repair := run(ctx, "e2fsck", "-p", path); repair != nil && exitCode(repair) != 1 {
		return fmt.Errorf("mount volume %s: %w", name, errors.Join(err, repair))
	}
	if err := m.Mount(s.mountPoint(name)); err != nil {
		return fmt.Errorf("mount volume %s: %w", name, err)
	}
	return nil
}

// Remove removes a volume and all that was in it. One that is absent is success;
// one that pods have mounted is ErrInUse.
func (s *Store) Remove(name string) error {
	path, err := s.file(name)
	if errors.Is(err, fs.ErrNotExist) {
		return s.removeMountPoint(name)
	}
	if err != nil {
		return err
	}
	if err := s.unmount(name, path); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	return errors.Join(s.flush(), s.removeMountPoint(name))
}

func (s *Store) removeMountPoint(name string) error {
	if err := os.Remove(s.mountPoint(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the mount point of volume %s: %w", name, err)
	}
	return nil
}

// run runs one of the machine's tools.
func run(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}
