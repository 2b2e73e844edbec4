package pki

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"

	"k8s.io/client-go/util/cert"
)

// minRSA is the shortest RSA key, in bits, that a certificate is signed for.
const minRSA = 2048

// NewRequest makes a key and a request for a client certificate of it, both
// PEM-encoded. The request names nobody: whoever signs it decides whom it is for.
func NewRequest() (requestPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("generate key: %w", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("create certificate request: %w", err)
	}
	keyPEM, err = encodeKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: cert.CertificateRequestBlockType, Bytes: der}), keyPEM, err
}

// SignClient signs a client certificate for the key of a PEM-encoded request, for a
// Kubernetes user and groups; what else the request says is not looked at. It
// returns the certificate and its PEM encoding.
func (a *Authority) SignClient(requestPEM []byte, user string, groups []string, ttl time.Duration) (*x509.Certificate, []byte, error) {
	if user == "" {
		return nil, nil, errors.New("sign client certificate: the user name is empty")
	}
	key, err := requestedKey(requestPEM)
	if err != nil {
		return nil, nil, fmt.Errorf("sign client certificate: %w", err)
	}
	der, err := a.sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: user, Organization: groups},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, key, ttl)
	if err != nil {
		return nil, nil, fmt.Errorf("sign client certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("sign client certificate: %w", err)
	}
	return leaf, encodeCert(der), nil
}

// requestedKey returns the public key of a request whose maker has the private one.
func requestedKey(requestPEM []byte) (any, error) {
	block, _ := pem.Decode(requestPEM)
	if block == nil || block.Type != cert.CertificateRequestBlockType {
		return nil, errors.New("the request is no PEM block of type " + cert.CertificateRequestBlockType)
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = request.CheckSignature()
	}
	if err != nil {
		return nil, fmt.Errorf("the request cannot be used: %w", err)
	}
	switch key := request.PublicKey.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return key, nil
	case *rsa.PublicKey:
		if key.N.BitLen() >= minRSA {
			return key, nil
		}
		return nil, fmt.Errorf("the request's RSA key has %d bits: use at least %d", key.N.BitLen(), minRSA)
	}
	return nil, fmt.Errorf("keys of type %T are not signed", request.PublicKey)
}

// Serial returns how a certificate's serial number is written in records.
func Serial(n *big.Int) string { return n.Text(16) }
