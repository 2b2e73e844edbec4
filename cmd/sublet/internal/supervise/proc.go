package supervise

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// bootID identifies the running kernel's boot.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// startTicks returns when a process started. It returns fs.ErrNotExist for a
// process that is gone or a zombie.
func startTicks(pid int) (uint64, error) {
	var stat procfs.ProcStat
	p, err := procfs.NewProc(pid)
	if err == nil {
		stat, err = p.Stat()
	}
	if errors.Is(err, unix.ESRCH) { // it ended between the two
		err = fs.ErrNotExist
	}
	if err != nil {
		return 0, fmt.Errorf("read the state of process %d: %w", pid, err)
	}
	if stat.State == "Z" || stat.State == "X" { // proc(5)
		return 0, fmt.Errorf("process %d has ended: %w", pid, fs.ErrNotExist)
	}
	return stat.Starttime, nil
}

// alive says whether the recorded process still runs.
func (r Record) alive() (bool, error) {
	boot, err := bootID()
	if err != nil {
		return false, err
	}
	if boot != r.Boot {
		return false, nil
	}
	start, err := startTicks(r.PID)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && start == r.Start, err
}

// Process is a handle on a process that is not necessarily a child. It keeps
// meaning that very process, even after its id was given to another.
type Process struct {
	PID  int
	file *os.File // the pidfd
}

// Find returns a handle on the process that holds the slot, or nil when none
// does. The caller must close it.
func (s Slot) Find() (*Process, Record, error) {
	r, alive, err := s.Holder()
	if err != nil || !alive {
		return nil, r, err
	}
	p, err := open(r.PID)
	if errors.Is(err, unix.ESRCH) {
		return nil, r, nil
	}
	if err != nil {
		return nil, r, err
	}
	// Between reading the record and opening the handle the process may have
	// ended and its id may have been given away: what counts is the state now.
	if alive, err := r.alive(); err != nil || !alive {
		return nil, r, errors.Join(err, p.Close())
	}
	return p, r, nil
}

func open(pid int) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	return &Process{PID: pid, file: os.NewFile(uintptr(fd), "pidfd")}, nil
}

// Close drops the handle; the process goes on.
func (p *Process) Close() error { return p.file.Close() }

// Signal sends a signal. A process that has ended is no error.
func (p *Process) Signal(sig syscall.Signal) error {
	conn, err := p.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("signal process %d: %w", p.PID, err)
	}
	var sent error
	if err := conn.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); err != nil {
		return fmt.Errorf("signal process %d: %w", p.PID, err)
	}
	if sent != nil && !errors.Is(sent, unix.ESRCH) {
		return fmt.Errorf("signal process %d: %w", p.PID, sent)
	}
	return nil
}

// Wait returns when the process has ended, or with ctx's error.
func (p *Process) Wait(ctx context.Context) error {
	conn, err := p.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("wait for process %d: %w", p.PID, err)
	}
	for {
		if err := p.file.SetReadDeadline(time.Time{}); err != nil {
			return fmt.Errorf("wait for process %d: %w", p.PID, err)
		}
		stop := context.AfterFunc(ctx, func() { _ = p.file.SetReadDeadline(time.Unix(1, 0)) }) // only fails once closed, which ends the wait too
		err = conn.Read(ended)
		stop()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, os.ErrDeadlineExceeded): // of an earlier wait whose context ended
		case err != nil:
			return fmt.Errorf("wait for process %d: %w", p.PID, err)
		default:
			return nil
		}
	}
}

// ended says whether a pidfd's process has ended: only then is it readable
// (pidfd_open(2)).
func ended(fd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1
}

// Stop asks the process to end with SIGTERM, waits for grace at most, and then
// kills it. It returns once the process has ended.
func (p *Process) Stop(grace time.Duration) error {
	if err := p.Signal(unix.SIGTERM); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	err := p.Wait(ctx)
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if err := p.Signal(unix.SIGKILL); err != nil {
		return err
	}
	return p.Wait(context.Background())
}

// Build identifies the build of the running program: Go's build id, a hash over
// everything that was linked.
func Build() (string, error) {
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		return "", fmt.Errorf("read the build id: %w", err)
	}
	defer f.Close()
	s := f.Section(".note.go.buildid")
	if s == nil {
		return "", errors.New("read the build id: the program has none; build it with the go tool")
	}
	note, err := s.Data()
	if err != nil || len(note) < 16 {
		return "", fmt.Errorf("read the build id: unexpected note: %w", err)
	}
	id := bytes.TrimRight(note[16:], "\x00") // name size, description size, type, "Go\0\0"
	// Its last part is the hash of the program; the parts before name inputs.
	last := id[bytes.LastIndexByte(id, '/')+1:]
	if len(last) == 0 {
		return hex.EncodeToString(id), nil
	}
	return string(last), nil
}
