package cell

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"sublet.dev/tenant-apiserver/etcdclient"
)

// EtcdStore is a part of an etcd, with what proves to it who asks. Certificates and
// keys are PEM. The zero value is none.
type EtcdStore struct {
	Endpoints string `json:"endpoints,omitempty"` // URLs, separated by commas
	Prefix    string `json:"prefix,omitempty"`
	CA        string `json:"ca,omitempty"` // empty: the authorities that the host trusts
	Cert      string `json:"cert,omitempty"`
	Key       string `json:"key,omitempty"`
	Username  string `json:"username,omitempty"`
	Password  string `json:"password,omitempty"`
}

// Config returns how to connect, or nil for the zero value. The error names what
// cannot be used.
func (e EtcdStore) Config() (*etcdclient.EtcdConfig, error) {
	if e == (EtcdStore{}) {
		return nil, nil
	}
	if e.Endpoints == "" || e.Prefix == "" {
		return nil, errors.New("the etcd's endpoints and prefix must be set")
	}
	c := &etcdclient.EtcdConfig{
		Endpoints: strings.Split(e.Endpoints, ","), Prefix: e.Prefix,
		Username: e.Username, Password: e.Password,
		TLS: &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if e.CA != "" {
		c.TLS.RootCAs = x509.NewCertPool()
		if !c.TLS.RootCAs.AppendCertsFromPEM([]byte(e.CA)) {
			return nil, errors.New("the etcd's ca.crt has no certificate")
		}
	}
	if (e.Cert == "") != (e.Key == "") {
		return nil, errors.New("of the etcd's tls.crt and tls.key only one is there")
	}
	if e.Cert != "" {
		pair, err := tls.X509KeyPair([]byte(e.Cert), []byte(e.Key))
		if err != nil {
			return nil, fmt.Errorf("the etcd's tls.crt and tls.key: %w", err)
		}
		c.TLS.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// String says where it is, and nothing that is secret.
func (e EtcdStore) String() string { return e.Endpoints + " " + e.Prefix }

// GoString is String, for those who print whole structures.
func (e EtcdStore) GoString() string { return e.String() }
