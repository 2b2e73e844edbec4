package cell

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// leave has the kernel refuse whoever connects from now on, as it does while there is
// no process, and says whether nobody had connected before. Otherwise, comeBack.
func (g *gate) leave() bool {
	g.mu.Lock()
	g.leaving = true
	l, done := g.listener, g.done
	g.mu.Unlock()
	_ = l.SetDeadline(time.Unix(1, 0)) // ends accept; it cannot fail while l is open
	<-done
	rest, err := shutOff(l)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting = append(g.waiting, rest...)
	return err == nil && len(g.waiting) == 0 && g.open == 0
}

// comeBack accepts again after leave. Who had connected waits on.
func (g *gate) comeBack() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	_ = g.listener.Close() // removes its socket, which is to make room
	if err := g.listen(); err != nil {
		return err
	}
	g.touch()
	return nil
}

func (g *gate) isLeaving() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.leaving
}

// shutOff has a listener that nobody accepts from refuse connections, and returns
// those that the kernel had taken before.
func shutOff(l *net.UnixListener) (taken []net.Conn, err error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("shut the tenant's socket: %w", err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		if failed = unix.Shutdown(int(fd), unix.SHUT_RD); failed != nil {
			return
		}
		for failed == nil {
			var conn net.Conn
			if conn, failed = acceptNow(int(fd)); conn != nil {
				taken = append(taken, conn)
			}
		}
	})
	if errors.Is(failed, unix.EAGAIN) || errors.Is(failed, unix.EINVAL) { // there is no more
		failed = nil
	}
	if err = errors.Join(err, failed); err != nil {
		return taken, fmt.Errorf("shut the tenant's socket: %w", err)
	}
	return taken, nil
}

// acceptNow returns a connection that the kernel has taken; it does not wait for one.
func acceptNow(listener int) (net.Conn, error) {
	fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "connection")
	conn, err := net.FileConn(f)
	return conn, errors.Join(err, f.Close())
}
