package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// process is one that runs, or did.
type process struct {
	name    string
	log     string // a file
	command *exec.Cmd
	ended   chan struct{} // closed when it has ended; err and nothing else is set before
	err     error
}

// run starts a program whose output goes to a file.
func (c *Cluster) run(name string, args ...string) error {
	p := &process{name: name, log: c.file(name + ".log"), ended: make(chan struct{})}
	out, err := os.Create(p.log)
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	defer out.Close()
	p.command = exec.Command(filepath.Join(c.config.Bin, name), args...)
	p.command.Stdout, p.command.Stderr = out, out
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a test that is killed leaves nothing behind
	if err := p.command.Start(); err != nil {
		return fmt.Errorf("%w; make upstream builds it", err)
	}
	c.processes = append(c.processes, p)
	go func() {
		defer close(p.ended)
		p.err = p.command.Wait()
	}()
	return nil
}

// lives fails when the process has ended, with the end of what it said.
func (p *process) lives() error {
	select {
	case <-p.ended:
	default:
		return nil
	}
	said, err := os.ReadFile(p.log)
	if err != nil {
		return fmt.Errorf("%s ended: %w (%w)", p.name, p.err, err)
	}
	said = bytes.TrimSpace(said)
	return fmt.Errorf("%s ended: %w\n%s", p.name, p.err, said[max(0, len(said)-2<<10):])
}

// stop kills the process and waits for its end.
func (p *process) stop() error {
	if err := p.command.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	<-p.ended
	return nil
}

func (c *Cluster) file(name string) string { return filepath.Join(c.config.Dir, name) }

// freePorts finds ports of loopback that nobody listens on now.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", loopback+":0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // all at the end: otherwise they might be the same
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
