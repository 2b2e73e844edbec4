package volumes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Grow makes a volume hold at least so many bytes and returns its size. A volume
// never shrinks. Where the kernel lets us, it grows while pods use it; elsewhere
// (ext4 asks for CAP_SYS_RESOURCE) that is ErrInUse until no pod does. The room is
// reserved in either case. It can be repeated.
func (s *Store) Grow(ctx context.Context, name string, bytes int64) (size int64, err error) {
	path, err := s.file(name)
	if err != nil {
		return 0, err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return 0, fmt.Errorf("grow volume %s: %w", name, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("grow volume %s: %w", name, err)
	}
	if size = max(Size(bytes), info.Size()); size > info.Size() {
		if err := s.take(f, info.Size(), size); err != nil {
			return 0, fmt.Errorf("grow volume %s by %w", name, err)
		}
		if err := f.Sync(); err != nil {
			return 0, fmt.Errorf("grow volume %s: %w", name, err)
		}
	}
	if err := s.Mount(ctx, name); err != nil {
		return 0, err
	}
	err = s.growMounted(ctx, name)
	if errors.Is(err, errNotMounted) {
		err = s.growUnmounted(ctx, name, path)
	}
	return size, err
}

// errNotMounted says that a file system can grow only while it is not mounted.
var errNotMounted = errors.New("the kernel grows no file system in use for this process")

// growMounted lets the file system of a mounted volume take all of its file.
func (s *Store) growMounted(ctx context.Context, name string) error {
	at, err := mountedAt(s.mountPoint(name))
	if err != nil || at == nil {
		return errors.Join(err, fmt.Errorf("grow volume %s: it is not mounted", name))
	}
	device, err := os.OpenFile(at.Source, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("grow volume %s: %w", name, err)
	}
	defer device.Close()
	if err := unix.IoctlSetInt(int(device.Fd()), unix.LOOP_SET_CAPACITY, 0); err != nil {
		return fmt.Errorf("grow the device of volume %s: %w", name, err)
	}
	err = run(ctx, "resize2fs", at.Source)
	if err != nil && strings.Contains(err.Error(), "Permission denied") {
		return errNotMounted
	}
	if err != nil {
		return fmt.Errorf("grow volume %s: %w", name, err)
	}
	return nil
}

// growUnmounted does the same for one that nobody uses. It is mounted again
// whatever happens.
func (s *Store) growUnmounted(ctx context.Context, name, path string) (err error) {
	defer func() { err = errors.Join(err, s.Mount(ctx, name)) }()
	if err := s.unmount(name, path); err != nil {
		return err
	}
	// resize2fs wants a check before; exit code 1: something was corrected.
	if err := run(ctx, "e2fsck", "-f", "-p", path); err != nil && exitCode(err) != 1 {
		return fmt.Errorf("check volume %s before it grows: %w", name, err)
	}
	if err := run(ctx, "resize2fs", path); err != nil {
		return fmt.Errorf("grow volume %s: %w", name, err)
	}
	return nil
}
