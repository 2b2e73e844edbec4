package frontdoor

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"strings"
	"testing"
)

// hello returns the bytes of a real ClientHello.
func hello(tb testing.TB, config *tls.Config) []byte {
	tb.Helper()
	client, server := net.Pipe()
	defer server.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Client(client, config).HandshakeContext(context.Background()) // fails when the test has read enough
	}()
	b := make([]byte, maxHello)
	n, err := server.Read(b)
	if err != nil {
		tb.Fatal(err)
	}
	_ = server.Close()
	<-done
	return b[:n]
}

// read gives readHello the input and then the end of the stream.
func read(input []byte) (string, []byte, error) {
	client, server := net.Pipe()
	defer server.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = client.Write(input) // fails when readHello has had enough
		_ = client.Close()
	}()
	name, taken, err := readHello(context.Background(), server)
	_ = server.Close()
	<-done
	return name, taken, err
}

func TestReadHello(t *testing.T) {
	for _, c := range []*tls.Config{
		{ServerName: "a.test"},
		{ServerName: "a.test", MaxVersion: tls.VersionTLS12, MinVersion: tls.VersionTLS10},
		{ServerName: "a.test", NextProtos: []string{"h2", "http/1.1"}},
	} {
		in := hello(t, c)
		name, taken, err := read(in)
		if err != nil || name != "a.test" || !bytes.Equal(taken, in) {
			t.Errorf("readHello = %q, %d of %d bytes, %v", name, len(taken), len(in), err)
		}
	}
	if name, _, err := read(hello(t, &tls.Config{InsecureSkipVerify: true})); err != nil || name != "" {
		t.Errorf("without a name: %q, %v", name, err)
	}
}

// A handshake message may be cut into many records (RFC 8446, 5.1).
func TestReadHelloInManyRecords(t *testing.T) {
	whole := hello(t, &tls.Config{ServerName: "a.test"})
	var cut []byte
	for body := whole[5:]; len(body) > 0; {
		n := min(64, len(body))
		cut = append(cut, 22, 3, 1, 0, byte(n))
		cut = append(cut, body[:n]...)
		body = body[n:]
	}
	if name, taken, err := read(cut); err != nil || name != "a.test" || !bytes.Equal(taken, cut) {
		t.Errorf("readHello = %q, %d of %d bytes, %v", name, len(taken), len(cut), err)
	}
}

func TestReadHelloIsBounded(t *testing.T) {
	endless := bytes.Repeat(append([]byte{22, 3, 1, 1, 0, 1, 0, 255, 255}, make([]byte, 252)...), 200)
	_, taken, err := read(endless)
	if err == nil || len(taken) > maxHello {
		t.Fatalf("took %d bytes, %v", len(taken), err)
	}
}

func FuzzReadHello(f *testing.F) {
	f.Add(hello(f, &tls.Config{ServerName: "a.test"}))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte{22, 3, 1, 255, 255, 1})
	f.Fuzz(func(t *testing.T, in []byte) {
		name, taken, err := read(in)
		if len(taken) > maxHello || !bytes.HasPrefix(in, taken) {
			t.Fatalf("took %d bytes that are not the input's", len(taken))
		}
		if err != nil && name != "" {
			t.Fatalf("a name, %q, from a hello that was refused: %v", name, err)
		}
		if strings.ContainsAny(name, "\x00/") && err == nil {
			t.Logf("odd name %q: no route can have it", name)
		}
	})
}
