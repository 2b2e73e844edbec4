package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"
)

// ProveUserNamespaces mounts what a pod in a user namespace has to see under other
// user ids: a directory of images, and a tmpfs, which Secrets and tokens are in.
// The kernel must know how to for both filesystems: Linux 5.19 for images on ext4
// or xfs, 6.3 for tmpfs. images is where containerd keeps them; run is a directory
// for what is mounted meanwhile, and is left as it was.
func ProveUserNamespaces(images, run string) (err error) {
	dir, err := os.MkdirTemp(run, "proof-")
	if err != nil {
		return fmt.Errorf("prove user namespaces: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	tmpfs := filepath.Join(dir, "tmpfs")
	if err := os.Mkdir(tmpfs, 0o700); err != nil {
		return fmt.Errorf("prove user namespaces: %w", err)
	}
	if err := unix.Mount("tmpfs", tmpfs, "tmpfs", 0, "size=64k"); err != nil {
		return fmt.Errorf("prove user namespaces: mount a tmpfs: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Unmount(tmpfs, unix.MNT_DETACH)) }()
	// Any range will do: nothing is written through it.
	const ids = "0:100000:65536"
	namespace, err := mount.GetUsernsFD(ids, ids)
	if err != nil {
		return fmt.Errorf("prove user namespaces: %w", err)
	}
	defer namespace.Close()
	for _, source := range []string{images, tmpfs} {
		if err := idmap(source, filepath.Join(dir, "mapped"), int(namespace.Fd())); err != nil {
			return err
		}
	}
	return nil
}

// idmap mounts source at target under other ids, and unmounts it again.
func idmap(source, target string, namespace int) error {
	if err := os.MkdirAll(target, 0o700); err != nil {
		return fmt.Errorf("prove user namespaces: %w", err)
	}
	if err := mount.IDMapMount(source, target, namespace); err != nil {
		var fs unix.Statfs_t
		_ = unix.Statfs(source, &fs) // only to name it; see statfs(2) for the number
		return fmt.Errorf("the kernel cannot show files of %s (filesystem type %#x) under other user ids; Linux 6.3 or later can on ext4, xfs, btrfs and tmpfs: %w", source, fs.Type, err)
	}
	if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("prove user namespaces: unmount: %w", err)
	}
	return nil
}
