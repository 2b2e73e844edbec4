package cell

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// client connects to a gate as the front door does, which tries again while nobody
// listens, and wants an answer.
func client(path string) error {
	conn, err := net.Dial("unix", path)
	for errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT) {
		conn, err = net.Dial("unix", path)
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte{7}); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, 1))
	return err
}

// serve answers who connects to a gate, until it has answered somebody and nobody waits.
func serve(g *gate) {
	s := g.session()
	for answered := false; !answered || g.wanted(); answered = true {
		conn, err := s.Accept()
		if err != nil {
			return
		}
		_, _ = io.CopyN(conn, conn, 1) // who connected tells
		_ = conn.Close()
	}
	_ = s.Close()
}

// TestGateLeaves: whoever connects is answered, by this gate or by the next one, however
// often gates are left.
func TestGateLeaves(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "gate")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	g, err := openGate(path, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for range 3 {
		clients.Go(func() {
			for ctx.Err() == nil {
				if err := client(path); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	left, stayed := 0, 0
	for left < 100 || stayed < 100 {
		serve(g)
		if !g.leave() {
			stayed++
			if err := g.comeBack(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		left++
		g.close()
		if g, err = openGate(path, time.Now); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		clients.Wait()
	}()
	s := g.session()
	go func() { // the last ones
		for {
			conn, err := s.Accept()
			if err != nil {
				return
			}
			_, _ = io.CopyN(conn, conn, 1)
			_ = conn.Close()
		}
	}()
	<-ended
	_ = s.Close()
	g.close()
}
