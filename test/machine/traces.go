package machine

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// traces returns an error that lists what is left of Sublet on the machine.
func traces() error {
	var left []string
	if _, err := os.Stat(shared.dataDir); err == nil {
		left = append(left, shared.dataDir)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, shared.dataDir) {
			left = append(left, "mount "+line)
		}
	}
	tables, err := exec.Command("nft", "list", "tables").Output()
	if err != nil {
		return fmt.Errorf("nft list tables: %w", err)
	}
	if len(bytes.TrimSpace(tables)) > 0 {
		left = append(left, string(tables))
	}
	id := ID()
	for _, pattern := range []string{"/sys/fs/cgroup/*/sublet-" + id, "/sys/fs/cgroup/sublet-" + id, "/run/sublet/" + id} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		left = append(left, found...)
	}
	links, err := exec.Command("ip", "-o", "link", "show", "type", "veth").Output()
	if err != nil {
		return fmt.Errorf("ip link: %w", err)
	}
	for line := range strings.Lines(string(links)) {
		if !strings.Contains(line, ": eth0@") {
			left = append(left, line)
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("left: %s", strings.Join(left, "\n"))
	}
	return nil
}
