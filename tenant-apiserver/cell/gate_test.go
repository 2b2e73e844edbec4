package cell

import (
	"net"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// tired is a listener that fails some times first, as one does for which there is no
// file descriptor.
type tired struct {
	*net.UnixListener
	failures atomic.Int32
}

func (l *tired) Accept() (net.Conn, error) {
	if l.failures.Add(-1) >= 0 {
		return nil, syscall.EMFILE
	}
	return l.UnixListener.Accept()
}

// A gate that could not accept goes on as soon as it can, whatever changes meanwhile,
// and ends when it is closed.
func TestGateGoesOnAfterAFailure(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	own, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	l := &tired{UnixListener: own}
	l.failures.Store(3)
	g := &gate{path: path, now: time.Now, listener: own, done: make(chan struct{}), changed: make(chan struct{})}
	go g.accept(l, g.done)
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for end := time.After(time.Minute); !g.wanted(); {
		g.resume() // a change
		select {
		case <-g.done:
			t.Fatal("it accepts no more")
		case <-end:
			t.Fatal("nobody accepts")
		case <-time.After(time.Millisecond):
		}
	}
	g.close() // returns once accept has
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		t.Error("a closed gate accepts")
	}
}
