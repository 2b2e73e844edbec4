package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// How a process that ends is started again: at once the first time, then slower
// and slower; one that lived for settled is seen as well again.
const (
	firstDelay = 10 * time.Millisecond
	lastDelay  = 10 * time.Second
	settled    = 15 * time.Second
)

// maxLog is the size from which a log file is set aside before a start.
const maxLog = 64 << 20

// Spec describes a process to keep running.
type Spec struct {
	Slot  Slot
	Build string   // of the program to run
	Argv  []string // Argv[0] is the path of the program
	// A holder of the slot with another build or other arguments is replaced.
	Env   []string // nil: this process's
	Log   string   // path of the file that gets its output, appended
	Grace time.Duration
	// Tries is how many times in a row the process may end before it has lived
	// well once; then Run gives up. 0: never give up.
	Tries  int
	Logger *slog.Logger
}

// GaveUpError says that a process would not start.
type GaveUpError struct {
	Name  string
	Tries int
	Last  string // how it ended, and its last words
	Log   string
}

// Error says what the process said last and where to read more.
func (e *GaveUpError) Error() string {
	return fmt.Sprintf("sublet %s did not start (%d tries): %s; its log is %s", e.Name, e.Tries, e.Last, e.Log)
}

// Run keeps the process running until ctx ends; then it stops the process and
// returns nil once it has ended. Run starts the process, or adopts the one that
// holds the slot. When this process is killed, the child lives on.
func Run(ctx context.Context, s Spec) error {
	delay, failures, well := firstDelay, 0, false
	for {
		began := time.Now()
		how, err := runOnce(ctx, s)
		if ctx.Err() != nil {
			return err
		}
		lived := time.Since(began)
		if lived >= settled {
			delay, failures, well = firstDelay, 0, true
		}
		if failures++; !well && s.Tries > 0 && failures >= s.Tries {
			return &GaveUpError{Name: s.Slot.Name, Tries: failures, Last: how, Log: s.Log}
		}
		level := slog.LevelWarn
		if how == wellEnded {
			level = slog.LevelInfo
		}
		s.Logger.Log(ctx, level, "process ended, starting it again", "process", s.Slot.Name, "how", how, "after", lived.Round(time.Millisecond), "in", delay)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
		}
		delay = min(delay*3, lastDelay)
	}
}

// runOnce adopts or starts the process and returns how it ended. When ctx ends
// it stops it; err then says whether that worked.
func runOnce(ctx context.Context, s Spec) (how string, err error) {
	p, holder, err := s.Slot.Find()
	if err != nil {
		return err.Error(), nil
	}
	if p != nil && (holder.Build != s.Build || !slices.Equal(holder.Command, s.Argv)) {
		s.Logger.Info("replacing a process of another build or with other flags", "process", s.Slot.Name, "pid", p.PID)
		if err := errors.Join(p.Stop(s.Grace), p.Close()); err != nil {
			return err.Error(), nil
		}
		p = nil
	}
	if p == nil {
		return start(ctx, s)
	}
	defer p.Close()
	s.Logger.Info("adopted a running process", "process", s.Slot.Name, "pid", p.PID, "since", holder.Since)
	if err := p.Wait(ctx); ctx.Err() != nil {
		return "", p.Stop(s.Grace)
	} else if err != nil {
		return err.Error(), nil
	}
	return "ended", nil
}

// start runs the process as a child in a session of its own, so that neither a
// terminal's signals nor our death reach it.
func start(ctx context.Context, s Spec) (how string, err error) {
	log, err := openLog(s.Log)
	if err != nil {
		return err.Error(), nil
	}
	defer log.Close()
	before, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Sprintf("seek in %s: %v", s.Log, err), nil
	}
	cmd := exec.Command(s.Argv[0], s.Argv[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr = s.Env, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Sprintf("start %s: %v", s.Argv[0], err), nil
	}
	p, err := open(cmd.Process.Pid)
	if err != nil {
		return err.Error(), errors.Join(cmd.Process.Kill(), cmd.Wait())
	}
	defer p.Close()
	s.Logger.Info("started a process", "process", s.Slot.Name, "pid", p.PID, "log", s.Log)
	if err := p.Wait(ctx); ctx.Err() != nil {
		err = p.Stop(s.Grace)
		_ = cmd.Wait() // reaps it; how it ended does not matter now
		return "", err
	} else if err != nil {
		return err.Error(), errors.Join(p.Stop(s.Grace), cmd.Wait())
	}
	_ = cmd.Wait() // its result is in ProcessState
	return describe(cmd.ProcessState, lastWords(s.Log, before, filepath.Base(s.Argv[0])+": ")), nil
}

// wellEnded is how a process ended that had come to its end.
const wellEnded = "exit status 0"

func describe(state *os.ProcessState, last string) string {
	if last == "" || state.Success() {
		return state.String()
	}
	return state.String() + ": " + last
}

func openLog(path string) (*os.File, error) {
	if fi, err := os.Stat(path); err == nil && fi.Size() > maxLog {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, fmt.Errorf("set the log aside: %w", err)
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	return f, nil
}

// lastWords returns the last line of the log from offset on that begins with
// prefix, as a program's errors do, or else the last line, shortened, or "" when
// there is none: it is only for a message.
func lastWords(path string, offset int64, prefix string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	const tail = 4096
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || end <= offset {
		return ""
	}
	b := make([]byte, min(tail, end-offset))
	n, _ := f.ReadAt(b, end-int64(len(b))) // a short read shortens the message
	lines := strings.Split(strings.TrimSpace(string(b[:n])), "\n")
	last := lines[len(lines)-1]
	for _, l := range lines {
		if strings.HasPrefix(l, prefix) {
			last = l
		}
	}
	if len(last) > 1000 {
		last = last[:1000] + "…"
	}
	return last
}
