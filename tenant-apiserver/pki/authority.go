package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"k8s.io/client-go/util/cert"
)

// ErrCorrupt is wrapped by every error about a file of an authority that is
// there but cannot be used. The error's text names the file and the remedy.
var ErrCorrupt = errors.New("unusable file of a certificate authority")

const (
	caKeyFile  = "ca.key"
	caCertFile = "ca.crt"
	saKeyFile  = "sa.key"

	caLifetime = 10 * 365 * 24 * time.Hour
	// backdate makes a new certificate valid on machines whose clock is a
	// little behind ours.
	backdate = 5 * time.Minute
)

// Authority signs the certificates of one control plane. Its methods are safe
// for concurrent use.
type Authority struct {
	key   *ecdsa.PrivateKey
	cert  *x509.Certificate
	caPEM []byte // every CA that is trusted, the one that signs first
	saKey *ecdsa.PrivateKey
	dir   string

	// While a rotation is not finished: the CA before this one, and this one as
	// signed by it.
	old, cross *x509.Certificate
}

// ErrMissing is wrapped by errors about an authority that is not there.
var ErrMissing = errors.New("the certificate authority is missing")

// Load opens the authority kept in dir and makes nothing. A file that is not there
// is an error wrapping ErrMissing; otherwise it is like LoadOrCreate.
func Load(dir string) (*Authority, error) {
	unlock, err := lock(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: there is no %s", ErrMissing, dir)
	}
	if err != nil {
		return nil, err
	}
	defer unlock()
	return load(dir)
}

// load opens an authority. The caller must hold the directory's lock.
func load(dir string) (*Authority, error) {
	for _, name := range []string{saKeyFile, caKeyFile, caCertFile} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: there is no %s", ErrMissing, path)
		} else if err != nil {
			return nil, fmt.Errorf("open certificate authority: %w", err)
		}
	}
	return loadOrCreate(dir, "")
}

// LoadOrCreate opens the authority kept in dir, creating the directory and
// whatever files are missing; commonName goes into a new CA certificate only.
// It is idempotent. A file that exists and cannot be used is an error wrapping
// ErrCorrupt; nothing is overwritten.
func LoadOrCreate(dir, commonName string) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create certificate directory: %w", err)
	}
	unlock, err := lock(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	return loadOrCreate(dir, commonName)
}

// loadOrCreate opens an authority and makes what is missing. The caller must hold
// the directory's lock.
func loadOrCreate(dir, commonName string) (*Authority, error) {
	if err := takeOver(dir); err != nil {
		return nil, err
	}
	_, haveCert := stat(filepath.Join(dir, caCertFile))
	_, haveKey := stat(filepath.Join(dir, caKeyFile))
	if haveCert && !haveKey {
		return nil, corrupt(filepath.Join(dir, caKeyFile), "it is missing although "+caCertFile+" is there", nil)
	}
	saKey, err := loadOrCreateKey(filepath.Join(dir, saKeyFile))
	if err != nil {
		return nil, err
	}
	caKey, err := loadOrCreateKey(filepath.Join(dir, caKeyFile))
	if err != nil {
		return nil, err
	}
	caCert, caPEM, err := loadOrCreateCA(filepath.Join(dir, caCertFile), caKey, commonName)
	if err != nil {
		return nil, err
	}
	a := &Authority{key: caKey, cert: caCert, caPEM: caPEM, saKey: saKey, dir: dir}
	if err := a.loadOverlap(); err != nil {
		return nil, err
	}
	return a, nil
}

// CAPEM is what those trust who know this authority: the PEM-encoded CA
// certificate, and the one before while a rotation is not finished. A copy each
// call.
func (a *Authority) CAPEM() []byte { return bytes.Clone(a.caPEM) }

// BundleFile is the path of a file with CAPEM.
func (a *Authority) BundleFile() string {
	if a.old == nil {
		return a.CAFile()
	}
	return filepath.Join(a.dir, bundleFile)
}

// CAFile is the path of the certificate of the CA that signs, for components that
// want a file.
func (a *Authority) CAFile() string { return filepath.Join(a.dir, caCertFile) }

// CAKeyFile is the path of the CA's private key, for a signer of the same
// control plane that wants a file.
func (a *Authority) CAKeyFile() string { return filepath.Join(a.dir, caKeyFile) }

// Certificate is the CA certificate. It is shared; callers must not modify it.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// Signed says whether a CA that is trusted has signed the certificate, whatever its dates
// are.
func (a *Authority) Signed(leaf *x509.Certificate) bool {
	return leaf.CheckSignatureFrom(a.cert) == nil || a.SignedBefore(leaf)
}

// SignedBefore says whether the CA before the present one has signed the certificate and
// is still trusted.
func (a *Authority) SignedBefore(leaf *x509.Certificate) bool {
	return a.old != nil && leaf.CheckSignatureFrom(a.old) == nil
}

// ServiceAccountKey is the key that signs this control plane's service account
// tokens. It must not leave the process.
func (a *Authority) ServiceAccountKey() *ecdsa.PrivateKey { return a.saKey }

func loadOrCreateKey(path string) (*ecdsa.PrivateKey, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return createKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	key, err := parseKey(data)
	if err != nil {
		return nil, corrupt(path, "it holds no ECDSA P-256 private key", err)
	}
	return key, nil
}

func createKey(path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	data, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	if err := writeFile(path, data); err != nil {
		return nil, err
	}
	return key, nil
}

func loadOrCreateCA(path string, key *ecdsa.PrivateKey, commonName string) (*x509.Certificate, []byte, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return createCA(path, key, commonName)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read CA certificate: %w", err)
	}
	certs, err := cert.ParseCertsPEM(data)
	if err != nil {
		return nil, nil, corrupt(path, "it holds no certificate", err)
	}
	ca := certs[0]
	if !ca.IsCA || !key.PublicKey.Equal(ca.PublicKey) {
		return nil, nil, corrupt(path, "it is not the certificate of "+caKeyFile, nil)
	}
	return ca, data, nil
}

func createCA(path string, key *ecdsa.PrivateKey, commonName string) (*x509.Certificate, []byte, error) {
	template, err := caTemplate(commonName, 1)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("create CA certificate: %w", err)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("parse new CA certificate: %w", err)
	}
	data := encodeCert(der)
	if err := writeFile(path, data); err != nil {
		return nil, nil, err
	}
	return ca, data, nil
}

// caTemplate describes the CA of a generation. The generations of an authority have
// different subjects, so that chains are never ambiguous.
func caTemplate(commonName string, generation int64) (*x509.Certificate, error) {
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	subject := pkix.Name{CommonName: commonName}
	if generation > 1 {
		subject.SerialNumber = strconv.FormatInt(generation, 10)
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber:          serial,
		Subject:               subject,
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}, nil
}

func corrupt(path, what string, cause error) error {
	const remedy = "restore it from a backup; or, to give up every certificate and token issued so far, remove the directory and start again"
	if cause != nil {
		return fmt.Errorf("%w: %s: %s (%v): %s", ErrCorrupt, path, what, cause, remedy)
	}
	return fmt.Errorf("%w: %s: %s: %s", ErrCorrupt, path, what, remedy)
}
