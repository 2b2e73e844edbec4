package cell

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"time"
)

// gate is a tenant's socket. It accepts all the time, also while the tenant sleeps
// or starts again: connections then wait, and are served once there is somebody to
// serve them.
type gate struct {
	path string
	now  func() time.Time

	mu       sync.Mutex
	listener *net.UnixListener
	done     chan struct{} // closed when accepting on listener has ended
	leaving  bool          // it is to end

	waiting []net.Conn    // accepted, not served yet
	open    int           // being served
	paused  bool          // nothing is handed out
	last    time.Time     // when the last connection that was served ended, or the gate was opened
	closed  bool          // for good
	changed chan struct{} // closed and replaced with every change of the above
}

// openGate makes the socket and accepts until close.
func openGate(path string, now func() time.Time) (*gate, error) {
	g := &gate{path: path, now: now, last: now(), changed: make(chan struct{})}
	if err := g.listen(); err != nil {
		return nil, err
	}
	return g, nil
}

// listen makes the socket and accepts. The caller must hold mu, or be alone.
func (g *gate) listen() (err error) {
	if g.listener, err = listen(g.path); err != nil {
		return err
	}
	g.done, g.leaving = make(chan struct{}), false
	go g.accept(g.listener, g.done)
	return nil
}

// listen makes the unix socket, in place of one that a killed process left.
func listen(path string) (*net.UnixListener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the old socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen for the front door: %w", err)
	}
	return l, nil
}

func (g *gate) accept(l net.Listener, done chan<- struct{}) {
	defer close(done)
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) || err != nil && g.isLeaving() {
			return
		}
		if err != nil { // no file descriptor is left
			select {
			case <-time.After(50 * time.Millisecond):
			case <-g.ended():
			}
			continue
		}
		g.mu.Lock()
		if g.closed {
			_ = conn.Close() // nobody will serve it
		} else {
			g.waiting = append(g.waiting, conn)
			g.touch()
		}
		g.mu.Unlock()
	}
}

// ended returns a channel that is closed at the next change, close included.
func (g *gate) ended() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

// touch wakes everybody who waits for a change. The caller must hold mu.
func (g *gate) touch() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// close ends the gate and drops the connections that wait. It is idempotent.
func (g *gate) close() {
	g.mu.Lock()
	_ = g.listener.Close() // closed already, or gone
	for _, c := range g.waiting {
		_ = c.Close() // its client tries again
	}
	g.waiting, g.closed = nil, true
	g.touch()
	done := g.done
	g.mu.Unlock()
	<-done
}

// idleSince returns since when nobody has been connected; ok is false while somebody
// is, or waits to be.
func (g *gate) idleSince() (since time.Time, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last, g.open == 0 && len(g.waiting) == 0
}

// pause hands out no connection from now on, unless there is one, or one waits. It
// says whether it has.
func (g *gate) pause() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open > 0 || len(g.waiting) > 0 {
		return false
	}
	g.paused = true
	return true
}

// resume undoes pause.
func (g *gate) resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.paused = false
	g.touch()
}

// knocked returns a channel that is closed once a connection waits, or may.
func (g *gate) knocked() (<-chan struct{}, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed, len(g.waiting) > 0
}

// wanted says whether a connection waits.
func (g *gate) wanted() bool {
	_, waits := g.knocked()
	return waits
}

// session returns a listener of the gate's connections. Closing it ends that
// session, and leaves the gate open for the next.
func (g *gate) session() net.Listener { return &session{gate: g, ended: make(chan struct{})} }

// session is one control plane's use of the gate.
type session struct {
	gate  *gate
	once  sync.Once
	ended chan struct{}
}

// Accept implements net.Listener.
func (s *session) Accept() (net.Conn, error) {
	for {
		conn, changed, err := s.next()
		if conn != nil || err != nil {
			return conn, err
		}
		select {
		case <-changed:
		case <-s.ended:
			return nil, net.ErrClosed
		}
	}
}

func (s *session) next() (net.Conn, <-chan struct{}, error) {
	g := s.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-s.ended:
		return nil, nil, net.ErrClosed
	default:
	}
	if g.closed {
		return nil, nil, net.ErrClosed
	}
	if g.paused || len(g.waiting) == 0 {
		return nil, g.changed, nil
	}
	conn := g.waiting[0]
	g.waiting = g.waiting[1:]
	g.open++
	return &guest{Conn: conn, gate: g}, nil, nil
}

// Close implements net.Listener. It is idempotent.
func (s *session) Close() error {
	s.once.Do(func() { close(s.ended) })
	return nil
}

// Addr implements net.Listener.
func (s *session) Addr() net.Addr { return s.gate.listener.Addr() }

// guest is a connection that is being served.
type guest struct {
	net.Conn
	gate *gate
	once sync.Once
}

// Close closes the connection and counts it out.
func (c *guest) Close() error {
	c.once.Do(func() {
		c.gate.mu.Lock()
		defer c.gate.mu.Unlock()
		c.gate.open--
		c.gate.last = c.gate.now()
		c.gate.touch()
	})
	return c.Conn.Close()
}
