package frontdoor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
)

// maxHello bounds what is read before a connection is routed. A ClientHello with
// post-quantum key shares has 2 KiB.
const maxHello = 16 << 10

// Alerts of RFC 8446 section 6.2, as whole records.
var (
	alertUnrecognizedName = []byte{21, 3, 1, 0, 2, 2, 112}
	alertInternalError    = []byte{21, 3, 1, 0, 2, 2, 80}
)

// notTLS answers clients that speak plain HTTP.
const notTLS = "HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nThis port speaks TLS only: use https://.\n"

var (
	errTooLong = fmt.Errorf("the ClientHello is longer than %d bytes", maxHello)
	errPlain   = errors.New("plain HTTP on a TLS port")
)

// readHello reads a ClientHello from conn and returns the server name in it
// ("" when it has none) and all bytes that it took from conn. It writes nothing.
// crypto/tls does the parsing: the handshake ends where it would ask for a
// certificate.
func readHello(ctx context.Context, conn net.Conn) (name string, taken []byte, err error) {
	rec := &recorder{Conn: conn}
	seen := false
	handshakeErr := tls.Server(rec, &tls.Config{
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			name, seen = h.ServerName, true
			return nil, errors.New("seen enough")
		},
	}).HandshakeContext(ctx)
	var plain tls.RecordHeaderError
	switch {
	case seen:
		return name, rec.taken, nil
	case errors.As(handshakeErr, &plain) && looksLikeHTTP(plain.RecordHeader):
		return "", rec.taken, errPlain
	default:
		return "", rec.taken, fmt.Errorf("read the ClientHello: %w", handshakeErr)
	}
}

func looksLikeHTTP(header [5]byte) bool {
	switch string(header[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "PATCH", "DELET", "OPTIO":
		return true
	}
	return false
}

// recorder keeps what is read, up to maxHello, and drops what is written. The
// handshake closes it, and so the connection, only when its context ends.
type recorder struct {
	net.Conn
	taken []byte
}

func (r *recorder) Read(p []byte) (int, error) {
	left := maxHello - len(r.taken)
	if left <= 0 {
		return 0, errTooLong
	}
	n, err := r.Conn.Read(p[:min(len(p), left)])
	r.taken = append(r.taken, p[:n]...)
	return n, err
}

func (r *recorder) Write(p []byte) (int, error) { return len(p), nil }
