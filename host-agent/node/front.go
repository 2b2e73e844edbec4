package node

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// Front is the listener on the node's address that the API server takes for the
// kubelet. It asks who the caller is, serves what the kubelet cannot (Handle), and
// passes everything else on to the kubelet on loopback.
type Front struct {
	// IP is the node's address. Cert, Key and CA are files: the serving
	// certificate for that address and the host's CA. They are read at each
	// connection, so a renewed certificate needs no restart.
	IP            netip.Addr
	Cert, Key, CA string
	// Clients are the users (common names) that may call, and nobody else: not
	// even the cluster's administrators, who go through the API server.
	Clients []string
	// Handle answers a request and returns true, or leaves it to the kubelet.
	Handle func(w http.ResponseWriter, r *http.Request) bool
	Logger *slog.Logger

	identity tls.Certificate
}

// Identity makes the certificate by which the kubelet knows the front, for this
// start only, and writes it (not its key) to file for the kubelet to read.
func (f *Front) Identity(file string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the front's identity: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: "sublet-agent"},
		NotBefore:    time.Now().Add(-time.Hour),
		// As long as the process: it is made anew at each start.
		NotAfter:              time.Now().AddDate(10, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return fmt.Errorf("make the front's identity: %w", err)
	}
	f.identity = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	var b bytes.Buffer
	if err := pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
		return fmt.Errorf("make the front's identity: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("make the front's identity: %w", err)
	}
	return writeFile(file, b.Bytes(), 0o600)
}

// Run serves until ctx ends, then gives requests under way a moment and returns
// nil. Identity must have been called.
func (f *Front) Run(ctx context.Context) error {
	config, err := f.tls()
	if err != nil {
		return err
	}
	proxy, err := f.proxy()
	if err != nil {
		return err
	}
	at := netip.AddrPortFrom(f.IP, KubeletPort)
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", at.String())
	if err != nil {
		return fmt.Errorf("listen for the API server: %w", err)
	}
	server := &http.Server{
		Handler:           f.handler(proxy),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(f.Logger.Handler(), slog.LevelDebug),
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(tls.NewListener(l, config)) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve the API server: %w", err)
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := server.Shutdown(last); err != nil {
		_ = server.Close() // followed logs and sessions do not end by themselves
	}
	<-done
	return nil
}

// tls returns the listener's configuration. Only HTTP/1.1 is spoken, since exec and
// port-forward upgrade the connection.
func (f *Front) tls() (*tls.Config, error) {
	if _, err := f.config(); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return f.config() },
	}, nil
}

// config reads the certificates.
func (f *Front) config() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("read the node's serving certificate: %w", err)
	}
	pool, err := readPool(f.CA)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
		Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
	}, nil
}

func readPool(file string) (*x509.CertPool, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the host's CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(raw) {
		return nil, fmt.Errorf("read the host's CA: %s holds no certificate", file)
	}
	return pool, nil
}

// proxy returns what passes requests on to the kubelet, upgrades included.
func (f *Front) proxy() (http.Handler, error) {
	if len(f.identity.Certificate) == 0 {
		return nil, errors.New("the front has no identity for the kubelet")
	}
	pool, err := readPool(f.CA)
	if err != nil {
		return nil, err
	}
	target := &url.URL{Scheme: "https", Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(KubeletPort))}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
		},
		Transport: &http.Transport{TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
			RootCAs: pool, ServerName: f.IP.String(), Certificates: []tls.Certificate{f.identity},
		}},
		FlushInterval: -1, // logs are followed
		ErrorLog:      slog.NewLogLogger(f.Logger.Handler(), slog.LevelDebug),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			http.Error(w, "the kubelet does not answer: "+err.Error(), http.StatusBadGateway)
		},
	}, nil
}

func (f *Front) handler(proxy http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !f.may(r.TLS) {
			http.Error(w, "only the host's API server may ask a node", http.StatusForbidden)
			return
		}
		if !f.Handle(w, r) {
			proxy.ServeHTTP(w, r)
		}
	})
}

// may says whether a verified client is one that may call.
func (f *Front) may(state *tls.ConnectionState) bool {
	if state == nil || len(state.VerifiedChains) == 0 {
		return false
	}
	return slices.Contains(f.Clients, state.PeerCertificates[0].Subject.CommonName)
}
