package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"k8s.io/client-go/util/cert"
)

// Files that are there only while an authority changes hands: until Finish, or for
// the moment that Rotate takes.
const (
	oldCertFile   = "ca-old.crt"   // the CA before this one, still trusted
	crossCertFile = "ca-cross.crt" // this CA's key, signed by the one before
	bundleFile    = "ca-bundle.crt"
	nextKeyFile   = "ca-next.key"
	nextCertFile  = "ca-next.crt"
)

// ErrRotating is returned by Rotate while the CA before the present one is still
// trusted.
var ErrRotating = errors.New("the rotation before this one is not finished")

// Generation counts the CAs of this authority, from 1.
func (a *Authority) Generation() int64 { return generationOf(a.cert) }

// generationOf reads the generation from a CA's subject, where Rotate writes it.
func generationOf(ca *x509.Certificate) int64 {
	n, err := strconv.ParseInt(ca.Subject.SerialNumber, 10, 64)
	if err != nil {
		return 1
	}
	return n
}

// Oldest is the generation of the oldest CA that is trusted: Generation, or, while
// a rotation is not finished, the one before.
func (a *Authority) Oldest() int64 {
	if a.old == nil {
		return a.Generation()
	}
	return generationOf(a.old)
}

// Rotate makes a new CA of that generation in the authority's directory. From then
// on it signs, and both are trusted: whoever knows only the old CA reaches a server
// with a new certificate through a cross-signed one, and certificates of the old CA
// are still good. The key of the old CA is gone. It is idempotent, survives a
// crash, and returns the authority as it is now; those that were loaded before stay
// as they were.
func Rotate(dir string, generation int64) (*Authority, error) {
	unlock, err := lock(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	a, err := load(dir)
	if err != nil || a.Generation() >= generation {
		return a, err
	}
	if a.old != nil {
		return nil, fmt.Errorf("rotate the CA in %s: %w: finish it first", dir, ErrRotating)
	}
	if err := a.writeNext(generation); err != nil {
		return nil, fmt.Errorf("rotate the CA: %w", err)
	}
	return load(dir) // which puts it into its place
}

// writeNext writes the next CA beside the present one. Once its certificate is
// there, load takes it over.
func (a *Authority) writeNext(generation int64) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("generate key: %w", err)
	}
	template, err := caTemplate(a.cert.Subject.CommonName, generation)
	if err != nil {
		return err
	}
	own, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return fmt.Errorf("create CA certificate: %w", err)
	}
	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	cross, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return fmt.Errorf("cross-sign the CA certificate: %w", err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		data []byte
	}{
		{oldCertFile, encodeCert(a.cert.Raw)}, {crossCertFile, encodeCert(cross)}, {nextKeyFile, keyPEM}, {nextCertFile, encodeCert(own)},
	} {
		if err := writeFile(filepath.Join(a.dir, f.name), f.data); err != nil {
			return err
		}
	}
	return nil
}

// takeOver completes a rotation that has written its CA, and forgets one that has
// not. The caller must hold the directory's lock.
func takeOver(dir string) error {
	at := func(name string) string { return filepath.Join(dir, name) }
	if _, written := stat(at(nextCertFile)); !written {
		return removeFiles(dir, nextKeyFile)
	}
	if _, there := stat(at(nextKeyFile)); there {
		if err := os.Rename(at(nextKeyFile), at(caKeyFile)); err != nil {
			return fmt.Errorf("take over the next CA: %w", err)
		}
	}
	if err := os.Rename(at(nextCertFile), at(caCertFile)); err != nil {
		return fmt.Errorf("take over the next CA: %w", err)
	}
	return syncDir(dir)
}

// loadOverlap reads what a rotation that is not finished left.
func (a *Authority) loadOverlap() error {
	old, err := readCert(filepath.Join(a.dir, oldCertFile))
	if errors.Is(err, fs.ErrNotExist) || err == nil && old.Equal(a.cert) {
		return nil // none, or one that ended before it had written its CA
	}
	if err != nil {
		return err
	}
	cross, err := readCert(filepath.Join(a.dir, crossCertFile))
	if err != nil {
		return err
	}
	if time.Now().After(old.NotAfter) {
		return nil
	}
	a.old, a.cross = old, cross
	a.caPEM = append(encodeCert(a.cert.Raw), encodeCert(old.Raw)...)
	path := filepath.Join(a.dir, bundleFile)
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, a.caPEM) {
		return nil
	}
	return writeFile(path, a.caPEM)
}

// Finish ends the trust in the CA before the present one. It is idempotent, and
// returns the authority as it is now.
func Finish(dir string) (*Authority, error) {
	unlock, err := lock(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if _, err := load(dir); err != nil {
		return nil, err
	}
	if err := removeFiles(dir, oldCertFile, crossCertFile, bundleFile); err != nil {
		return nil, err
	}
	return load(dir)
}

func removeFiles(dir string, names ...string) error {
	for _, name := range names {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove a certificate: %w", err)
		}
	}
	return nil
}

func readCert(path string) (*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	certs, err := cert.ParseCertsPEM(data)
	if err != nil {
		return nil, corrupt(path, "it holds no certificate", err)
	}
	return certs[0], nil
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: cert.CertificateBlockType, Bytes: der})
}

// lock keeps other processes from writing to the directory until unlock.
func lock(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("lock certificate directory: %w", err)
	}
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock certificate directory %s: %w", dir, err), d.Close())
	}
	return func() { _ = d.Close() }, nil // which unlocks; nothing was written to it
}
