package node

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// prepareDirs makes the directories of a node.
func prepareDirs(l Layout) error {
	for _, d := range []string{l.Run(), l.KubeletRoot(), l.PodLogs(), l.Containerd(), l.CNIConf(), l.CNIBin(), l.IPAM(), filepath.Join(l.Data, "log"), filepath.Join(l.Data, "run")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return fmt.Errorf("make a directory of the node: %w", err)
		}
	}
	// Containers in user namespaces pass through these two.
	for _, d := range []string{filepath.Dir(l.Run()), l.Run()} {
		if err := os.Chmod(d, 0o711); err != nil {
			return fmt.Errorf("open the run directory for passing through: %w", err)
		}
	}
	return share(l.KubeletRoot())
}

// share makes a directory a shared mount unless it is in one, so that volumes that
// are mounted below it later appear in containers that ask for it
// (mountPropagation: HostToContainer).
func share(dir string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.ParentsFilter(dir))
	if err != nil {
		return fmt.Errorf("find the mount of %s: %w", dir, err)
	}
	var at *mountinfo.Info // the innermost, and of several there the topmost
	for _, m := range mounts {
		if at == nil || len(m.Mountpoint) >= len(at.Mountpoint) {
			at = m
		}
	}
	if at != nil && strings.Contains(at.Optional, "shared:") {
		return nil
	}
	if at == nil || at.Mountpoint != dir {
		if err := unix.Mount(dir, dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("make %s a mount: %w", dir, err)
		}
	}
	if err := unix.Mount("", dir, "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make %s a shared mount: %w", dir, err)
	}
	return nil
}
