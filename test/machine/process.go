package machine

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/procfs"
)

// Files of the run directory that hold the processes' ids.
const (
	ServerPID = "server.pid"
	CellPID   = "cell-0.pid"
	AgentPID  = "agent.pid"
)

// ReadPID reads a process id.
func ReadPID(file string) (int, error) {
	b, err := os.ReadFile(filepath.Join(shared.dataDir, "run", file))
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	return strconv.Atoi(first)
}

// PidOf reads a process id that must be there.
func PidOf(t testing.TB, file string) int {
	t.Helper()
	pid, err := ReadPID(file)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// Kill ends the process whose id stands in a file of the run directory, without
// a chance to clean up, and waits until it is gone.
func Kill(t testing.TB, pidFile string) {
	t.Helper()
	pid := PidOf(t, pidFile)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	Eventually(t, "the process ends", func() error {
		if now, err := ReadPID(pidFile); err == nil && now != pid {
			return nil
		}
		if err := syscall.Kill(pid, 0); err == nil && !zombie(pid) {
			return fmt.Errorf("process %d is still there", pid)
		}
		return nil
	})
}

func zombie(pid int) bool {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return false
	}
	stat, err := p.Stat()
	return err == nil && stat.State == "Z"
}
