package upstream

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"

	"sublet.dev/tenant-apiserver/pki"
)

// accountKeyFile signs the tokens of service accounts.
const accountKeyFile = "service-accounts.key"

// credentials are the files of an API server.
type credentials struct {
	servingCert, servingKey string
	kubeletCert, kubeletKey string // with which it asks kubelets
	accountKey              string
	clientCA                string
}

// writeCredentials makes the API server's files.
func (c *Cluster) writeCredentials() (credentials, error) {
	f := credentials{
		servingCert: c.file("serving.crt"), servingKey: c.file("serving.key"),
		kubeletCert: c.file("kubelet-client.crt"), kubeletKey: c.file("kubelet-client.key"),
		accountKey: c.file(accountKeyFile), clientCA: c.file("clients.crt"),
	}
	clientCA := c.config.CA.CAPEM()
	if c.config.Clients != nil {
		clientCA = c.config.Clients.caPEM()
	}
	serving, err := c.config.CA.IssueServing([]string{"kubernetes"}, []netip.Addr{netip.MustParseAddr(loopback)}, pki.DefaultClientTTL)
	if err != nil {
		return f, err
	}
	var chain bytes.Buffer
	for _, der := range serving.Certificate {
		if err := pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
			return f, err
		}
	}
	clientCert, clientKey, err := c.config.CA.IssueClient("kube-apiserver-kubelet-client", []string{"system:masters"}, pki.DefaultClientTTL)
	if err != nil {
		return f, err
	}
	accounts, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return f, err
	}
	servingKey, err := keyPEM(serving.PrivateKey)
	if err != nil {
		return f, err
	}
	accountKey, err := keyPEM(accounts)
	if err != nil {
		return f, err
	}
	for file, content := range map[string][]byte{
		f.servingCert: chain.Bytes(), f.servingKey: servingKey, f.kubeletCert: clientCert, f.kubeletKey: clientKey, f.accountKey: accountKey,
		f.clientCA: clientCA,
	} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			return f, err
		}
	}
	return f, nil
}

// keyPEM encodes a private key in the form that all of upstream reads.
func keyPEM(key crypto.PrivateKey) ([]byte, error) {
	private, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("a key of the type %T", key)
	}
	der, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}
