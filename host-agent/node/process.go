package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// record is what is kept of a process, so that a later agent finds it again. The
// start time makes it a name that no other process ever has.
type record struct {
	PID int `json:"pid"`
	// Started is the 22nd field of /proc/PID/stat: clock ticks since boot.
	Started uint64 `json:"started"`
	// Boot is the kernel's boot id, since ticks begin anew at each boot.
	Boot string `json:"boot"`
	// Build tells what was started: an adopted process must be the same.
	Build string `json:"build"`
}

// process is a running process, held by a descriptor that names it and no other.
type process struct {
	record
	fd int
}

// errNotRunning says that a record's process is gone.
var errNotRunning = errors.New("not running")

// start starts a command in a session of its own, so that no signal to the agent's
// terminal or group reaches it, and records it in file. enter is called with the
// process id before anything is recorded.
func start(cmd *exec.Cmd, file, build string, enter func(pid int) error) (*process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	p, err := describe(cmd.Process.Pid, build)
	if err == nil {
		err = enter(cmd.Process.Pid)
	}
	if err == nil {
		err = p.save(file)
	}
	if err != nil {
		_ = cmd.Process.Kill() // it is our child: the id is still its own
		_ = cmd.Wait()
		return nil, err
	}
	return p, nil
}

// describe opens a process and reads what tells it from others.
func describe(pid int, build string) (*process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	started, err := startTime(pid)
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	boot, err := bootID()
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &process{record{PID: pid, Started: started, Boot: boot, Build: build}, fd}, nil
}

// find opens the process that file records; errNotRunning when there is none.
func find(file string) (*process, error) {
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNotRunning
	}
	if err != nil {
		return nil, fmt.Errorf("read the record of a process: %w", err)
	}
	var r record
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, fmt.Errorf("%s is not readable: make sure that the process it was about has ended, and remove it: %w", file, err)
	}
	p, err := describe(r.PID, r.Build)
	if err != nil {
		return nil, errNotRunning
	}
	if p.record != r {
		_ = p.close() // a stranger, who got the number
		return nil, errNotRunning
	}
	return p, nil
}

func (p *process) save(file string) error {
	raw, err := json.Marshal(p.record)
	if err != nil {
		return fmt.Errorf("record process %d: %w", p.PID, err)
	}
	return writeFile(file, raw, 0o600)
}

// wait returns nil when the process has ended, or ctx's error.
func (p *process) wait(ctx context.Context) error {
	fds := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
	for ctx.Err() == nil {
		n, err := unix.Poll(fds, int(pollEvery.Milliseconds())*10)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("watch process %d: %w", p.PID, err)
		}
		if n > 0 {
			// Our own child stays a zombie until it is waited for.
			_, _ = unix.Wait4(p.PID, nil, unix.WNOHANG, nil)
			return nil
		}
	}
	return context.Cause(ctx)
}

// stop asks the process to end, and ends it when ctx does.
func (p *process) stop(ctx context.Context) error {
	if err := p.signal(unix.SIGTERM); err != nil {
		return err
	}
	if p.wait(ctx) == nil {
		return nil
	}
	if err := p.signal(unix.SIGKILL); err != nil {
		return err
	}
	return p.wait(context.WithoutCancel(ctx))
}

// signal sends a signal; a process that is gone already is success.
func (p *process) signal(s unix.Signal) error {
	if err := unix.PidfdSendSignal(p.fd, s, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("send %s to process %d: %w", s, p.PID, err)
	}
	return nil
}

func (p *process) close() error { return unix.Close(p.fd) }

// startTime reads when a process was started.
func startTime(pid int) (uint64, error) {
	var stat procfs.ProcStat
	p, err := procfs.NewProc(pid)
	if err == nil {
		stat, err = p.Stat()
	}
	if err != nil {
		return 0, fmt.Errorf("read the start time of process %d: %w", pid, err)
	}
	return stat.Starttime, nil
}

func bootID() (string, error) {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	return strings.TrimSpace(string(raw)), nil
}
