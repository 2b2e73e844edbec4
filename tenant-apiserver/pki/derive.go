package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"
)

// Lifetime of derived authorities: whatever depended on the moment of the derivation
// would make another certificate each time. The end is RFC 5280's (4.1.2.5) for those
// that have none.
var (
	derivedFrom  = time.Date(2020, time.January, 1, 0, 0, 0, 0, time.UTC)
	derivedUntil = time.Date(9999, time.December, 31, 23, 59, 59, 0, time.UTC)
)

// derivations is how many keys are tried: of two to the 32nd one is not a number that
// the curve has.
const derivations = 8

// Derive returns an authority of that name that nobody has to keep: its key follows from
// this one's key for service accounts (HKDF, RFC 5869), which no rotation changes, and
// its certificate is the same at every call (signatures by RFC 6979). It trusts, and is
// trusted with, nothing of this one. It has no files and no key for service accounts.
func (a *Authority) Derive(commonName string) (*Authority, error) {
	key, err := a.deriveKey(commonName)
	if err != nil {
		return nil, fmt.Errorf("derive the authority %s: %w", commonName, err)
	}
	public, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, fmt.Errorf("derive the authority %s: %w", commonName, err)
	}
	id := sha256.Sum256(public)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: commonName},
		NotBefore: derivedFrom, NotAfter: derivedUntil,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true, IsCA: true,
		SubjectKeyId: id[:20], // Go's own is not the same in all its versions
	}
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("derive the authority %s: %w", commonName, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("derive the authority %s: %w", commonName, err)
	}
	return &Authority{key: key, cert: cert, caPEM: encodeCert(der)}, nil
}

// deriveKey makes a key of this authority's secret and a name.
func (a *Authority) deriveKey(name string) (key *ecdsa.PrivateKey, err error) {
	secret, err := a.saKey.Bytes()
	if err != nil {
		return nil, err
	}
	for n := range derivations {
		var scalar []byte
		if scalar, err = hkdf.Key(sha256.New, secret, nil, fmt.Sprintf("authority %d %s", n, name), 32); err != nil {
			return nil, err
		}
		if key, err = ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar); err == nil {
			return key, nil
		}
	}
	return nil, err
}
