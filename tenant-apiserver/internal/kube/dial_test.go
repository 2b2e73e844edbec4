package kube

import (
	"crypto/tls"
	"errors"
	"net"
	"testing"
)

// Upstream's proxies compare the text of this error, and log any other one.
func TestAClosedPipeIsAClosedConnection(t *testing.T) {
	l := newPipeListener(&tls.Config{})
	defer l.Close()
	go func() { _, _ = l.Accept() }() // the other end needs nobody
	conn, err := l.Dial(t.Context(), "tcp", "node:10250")
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read: %v", err)
	}
	if _, err := conn.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write: %v", err)
	}
}
