package volumes

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// mountedAt returns the mount at a mount point, nil when there is none.
func mountedAt(point string) (*mountinfo.Info, error) {
	found, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(point))
	if err != nil {
		return nil, fmt.Errorf("look for the mount of %s: %w", point, err)
	}
	if len(found) == 0 {
		return nil, nil
	}
	return found[0], nil
}

// users lists where else the file system of a mount is mounted.
func users(of *mountinfo.Info) ([]string, error) {
	all, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, fmt.Errorf("look who has a volume mounted: %w", err)
	}
	var at []string
	for _, m := range all {
		if m.Major == of.Major && m.Minor == of.Minor && m.Mountpoint != of.Mountpoint {
			at = append(at, m.Mountpoint)
		}
	}
	return at, nil
}

// unmount unmounts a volume that nobody uses, and sees to it that its loop device is
// gone: a mount namespace of a container that is ending may hold it a little longer.
// Otherwise it is ErrInUse.
func (s *Store) unmount(name, path string) error {
	at, err := mountedAt(s.mountPoint(name))
	if err != nil {
		return err
	}
	if at != nil {
		if by, err := users(at); err != nil || len(by) > 0 {
			return errors.Join(err, fmt.Errorf("volume %s: %w", name, ErrInUse))
		}
		if err := unix.Unmount(s.mountPoint(name), unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount volume %s: %w", name, err)
		}
	}
	device, err := loopOf(path)
	if err != nil {
		return err
	}
	if device != "" {
		return fmt.Errorf("volume %s: %s: %w", name, device, ErrInUse)
	}
	return nil
}

// loopOf returns the loop device that a file is attached to, "" when it is to none.
func loopOf(path string) (string, error) {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return "", fmt.Errorf("look for loop devices: %w", err)
	}
	for _, f := range files {
		backing, err := os.ReadFile(f)
		if err == nil && strings.TrimSpace(string(backing)) == path { // else: freed meanwhile
			return "/dev/" + strings.Split(f, "/")[3], nil
		}
	}
	return "", nil
}

// holdLoop opens the loop device that a file is attached to, which keeps it that
// file's; nil when it is attached to none.
func holdLoop(path string) (*os.File, error) {
	device, err := loopOf(path)
	if err != nil || device == "" {
		return nil, err
	}
	f, err := os.Open(device)
	if errors.Is(err, unix.ENXIO) {
		return nil, nil // freed meanwhile
	}
	if err != nil {
		return nil, fmt.Errorf("hold a loop device: %w", err)
	}
	if now, err := loopOf(path); err != nil || now != device {
		return nil, errors.Join(err, f.Close()) // freed, and may be another file's
	}
	return f, nil
}
