package sandbox

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// platform is how gVisor catches system calls. systrap works on any Linux, also
// inside a virtual machine without nested virtualization.
const platform = "systrap"

// WriteRunscConfig writes the configuration that gVisor's shim reads (pkg/shim/v1,
// Options) to path: the runsc binary, and the directory of its containers' state.
func WriteRunscConfig(path, binary, root string) error {
	config := fmt.Sprintf("binary_name = %q\nroot = %q\n\n[runsc_config]\n  platform = %q\n  systemd-cgroup = \"false\"\n", binary, root, platform)
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return fmt.Errorf("write gVisor's configuration: %w", err)
	}
	return nil
}

// proofLimit is how long the proof may take; it takes a tenth of a second.
const proofLimit = 30 * time.Second

// ProveRunsc starts a gVisor sandbox without network, runs a program in it, and
// returns an error unless the program saw gVisor's kernel. State is kept in a
// directory below run, which is removed again.
func ProveRunsc(ctx context.Context, binary, run string) error {
	dir, err := os.MkdirTemp(run, "proof-")
	if err != nil {
		return fmt.Errorf("prove gVisor: %w", err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(ctx, proofLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "--root", filepath.Join(dir, "root"), "--platform", platform, "--network", "none", "--ignore-cgroups", "do", "/bin/dmesg")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("prove gVisor: %w: %s", err, last(out))
	}
	if !strings.Contains(string(out), "Starting gVisor") {
		return fmt.Errorf("prove gVisor: a program inside saw another kernel: %s", last(out))
	}
	return nil
}

// last returns the end of a command's output, for an error.
func last(out []byte) string {
	s := strings.TrimSpace(string(out))
	if len(s) > 400 {
		s = "..." + s[len(s)-400:]
	}
	return s
}
