package keyring

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/apiserver/pkg/storage/value/encrypt/aes"
	"k8s.io/apiserver/pkg/storage/value/encrypt/identity"
)

var (
	// ErrMissing is wrapped by Open when there is no file.
	ErrMissing = errors.New("the file with the encryption keys is missing")
	// ErrCorrupt is wrapped when the file is not one of ours or damaged.
	ErrCorrupt = errors.New("the file with the encryption keys is damaged")
	// ErrKMS is wrapped when the KMS does not do what it is there for.
	ErrKMS = errors.New("the KMS plugin does not decrypt or encrypt the keys")
)

var errOtherKey = errors.New("the value is not encrypted with a key of this store")

const (
	// Prefix begins every encrypted value.
	Prefix = "k8s:enc:aesgcm-hkdf:v1:"

	secretBytes = aes.MinSeedSizeExtendedNonceGCM
	// maxUses is how many values a cipher handles before it is replaced. Upstream's
	// keeps the derived key of each, about a kilobyte, for ten minutes and, while nothing
	// is written, for good.
	maxUses = 64
)

// Ring is the keys of one store. It is a value.Transformer. Its methods are safe for
// concurrent use.
type Ring struct {
	path string
	kms  KMS

	mu      sync.Mutex // held while the file is changed
	file    file
	secrets map[string][]byte

	current atomic.Pointer[ciphers]
}

// ciphers are what the file says at one time.
type ciphers struct {
	value.Transformer
	write     []byte // the prefix of new values
	uses      atomic.Int64
	plaintext bool
	ids       []string
	each      map[string]value.Transformer // by key, with the prefix
}

// Create makes a file with one new key. kms may be nil. A file that is there already
// is an error, which wraps fs.ErrExist.
func Create(ctx context.Context, path string, kms KMS) (*Ring, error) {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("make keys %s: %w", path, cmpErr(err, fs.ErrExist))
	}
	r := &Ring{path: path, kms: kms, secrets: map[string][]byte{}, file: file{Format: format}}
	id, err := r.Add(ctx)
	if err != nil {
		return nil, err
	}
	return r, r.Use(id)
}

func cmpErr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

// Open reads the file. kms may be nil if no key in it was encrypted by one. Keys
// that the KMS encrypted with an older key of its own, or that no KMS encrypted yet,
// are encrypted again. Errors wrap ErrMissing, ErrCorrupt or ErrKMS.
func Open(ctx context.Context, path string, kms KMS) (*Ring, error) {
	f, err := readFile(path)
	if err != nil {
		return nil, err
	}
	r := &Ring{path: path, kms: kms, file: f, secrets: map[string][]byte{}}
	for _, k := range f.Keys {
		secret := k.Secret
		if k.KMS != nil {
			if secret, err = unwrap(ctx, kms, k.ID, k.KMS); err != nil {
				return nil, fmt.Errorf("keys %s: %w", path, err)
			}
		}
		r.secrets[k.ID] = secret
	}
	if err := r.Rewrap(ctx); err != nil {
		return nil, err
	}
	return r, r.publish()
}

// Rewrap has the KMS, if there is one, encrypt again what it did not encrypt with
// its present key. Values in the store do not change.
func (r *Ring) Rewrap(ctx context.Context) error {
	if r.kms == nil {
		return nil
	}
	now, err := kmsKeyID(ctx, r.kms)
	if err != nil {
		return fmt.Errorf("keys %s: %w", r.path, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	next, changed := r.file.clone(), false
	for i, k := range next.Keys {
		if k.KMS != nil && k.KMS.KeyID == now {
			continue
		}
		w, err := wrap(ctx, r.kms, r.secrets[k.ID])
		if err != nil {
			return fmt.Errorf("keys %s: %w", r.path, err)
		}
		next.Keys[i].KMS, next.Keys[i].Secret, changed = w, nil, true
	}
	if !changed {
		return nil
	}
	return r.save(next)
}

func (f file) clone() file {
	f.Keys = append([]key(nil), f.Keys...)
	return f
}

// save makes next what is on disk. The caller must hold mu.
func (r *Ring) save(next file) error {
	if err := next.write(r.path); err != nil {
		return err
	}
	r.file = next
	return nil
}

// Add makes a new key, for reading. Nothing is encrypted with it before Use.
func (r *Ring) Add(ctx context.Context) (id string, err error) {
	secret := make([]byte, secretBytes)
	rand.Read(secret) // never fails
	r.mu.Lock()
	defer r.mu.Unlock()
	next := r.file.clone()
	if id, err = next.next(); err != nil {
		return "", err
	}
	k := key{ID: id, Created: time.Now().UTC().Truncate(time.Second), Secret: secret}
	if r.kms != nil {
		if k.KMS, err = wrap(ctx, r.kms, secret); err != nil {
			return "", err
		}
		k.Secret = nil
	}
	next.Keys = append(next.Keys, k)
	if next.Write == "" {
		next.Write = id // of the first key
	}
	r.secrets[id] = secret
	if err := r.save(next); err != nil {
		return "", err
	}
	return id, r.publishLocked()
}

// Use encrypts values with the key from now on.
func (r *Ring) Use(id string) error {
	return r.change(func(f *file) error {
		if _, ok := f.find(id); !ok {
			return fmt.Errorf("there is no key %s", id)
		}
		f.Write = id
		return nil
	})
}

// AcceptPlaintext reads values, too, that are not encrypted.
func (r *Ring) AcceptPlaintext() error {
	return r.change(func(f *file) error { f.Plaintext = true; return nil })
}

// Drop removes all keys but the one in use, and refuses values that are not
// encrypted. The caller has rewritten all values.
func (r *Ring) Drop() error {
	return r.change(func(f *file) error {
		k, _ := f.find(f.Write)
		f.Remains = f.Remains || f.Plaintext || len(f.Keys) > 1
		f.Keys, f.Plaintext = []key{k}, false
		r.secrets = map[string][]byte{k.ID: r.secrets[k.ID]}
		return nil
	})
}

// Remains says that the store's file may have values in its free space that were
// rewritten before the last Drop: plain ones, or such under a dropped key.
func (r *Ring) Remains() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.file.Remains
}

// NoRemains is to be called when the file has been rewritten without its free space.
func (r *Ring) NoRemains() error {
	return r.change(func(f *file) error { f.Remains = false; return nil })
}

// change does what do says to the file, and then to the ciphers.
func (r *Ring) change(do func(*file) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := r.file.clone()
	if err := do(&next); err != nil {
		return fmt.Errorf("keys %s: %w", r.path, err)
	}
	if err := r.save(next); err != nil {
		return err
	}
	return r.publishLocked()
}

func (r *Ring) publish() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.publishLocked()
}

// publishLocked makes ciphers of the file. The caller must hold mu.
func (r *Ring) publishLocked() error {
	c := &ciphers{write: prefixOf(r.file.Write), plaintext: r.file.Plaintext, each: map[string]value.Transformer{}}
	var list []value.PrefixTransformer
	for _, k := range r.file.Keys {
		cipher, err := aes.NewHKDFExtendedNonceGCMTransformer(r.secrets[k.ID])
		if err != nil {
			return fmt.Errorf("keys %s: key %s: %w", r.path, k.ID, err)
		}
		p := value.PrefixTransformer{Prefix: prefixOf(k.ID), Transformer: cipher}
		if k.ID == r.file.Write {
			list = append([]value.PrefixTransformer{p}, list...)
		} else {
			list = append(list, p)
		}
		c.ids = append(c.ids, k.ID)
		c.each[k.ID] = value.NewPrefixTransformers(errOtherKey, p)
	}
	if c.plaintext {
		list = append(list, value.PrefixTransformer{Transformer: identity.NewEncryptCheckTransformer()})
	}
	c.Transformer = value.NewPrefixTransformers(errOtherKey, list...)
	r.current.Store(c)
	return nil
}

func prefixOf(id string) []byte { return []byte(Prefix + id + ":") }

// ciphers returns the current ones, replaced when they kept enough derived keys.
func (r *Ring) ciphers() *ciphers {
	c := r.current.Load()
	if c.uses.Add(1) == maxUses {
		_ = r.publish() // the secrets were good before
	}
	return c
}

// TransformFromStorage decrypts the value of the storage key that dataCtx has as its
// authenticated data. stale says that it is not under the key in use.
func (r *Ring) TransformFromStorage(ctx context.Context, data []byte, dataCtx value.Context) (out []byte, stale bool, err error) {
	return r.ciphers().TransformFromStorage(ctx, data, dataCtx)
}

// TransformToStorage encrypts a value for the storage key that dataCtx has as its
// authenticated data.
func (r *Ring) TransformToStorage(ctx context.Context, data []byte, dataCtx value.Context) ([]byte, error) {
	return r.ciphers().TransformToStorage(ctx, data, dataCtx)
}

// SealWith encrypts a value with a certain key, which need not be the one in use.
func (r *Ring) SealWith(ctx context.Context, id string, data []byte, dataCtx value.Context) ([]byte, error) {
	cipher := r.current.Load().each[id]
	if cipher == nil {
		return nil, fmt.Errorf("keys %s: there is no key %s", r.path, id)
	}
	return cipher.TransformToStorage(ctx, data, dataCtx)
}

// Path is where the keys are.
func (r *Ring) Path() string { return r.path }

// IDs are the keys that values are read with, the oldest first. The caller must not
// change it.
func (r *Ring) IDs() []string { return r.current.Load().ids }

// InUse is the key that values are written with.
func (r *Ring) InUse() string {
	return string(bytes.TrimSuffix(r.current.Load().write[len(Prefix):], []byte(":")))
}

// Plaintext says whether values are read that are not encrypted.
func (r *Ring) Plaintext() bool { return r.current.Load().plaintext }

// Unfinished says that a rotation, or taking over a store that was not encrypted,
// is not done: values may not be under the newest key.
func (r *Ring) Unfinished() bool {
	c := r.current.Load()
	return len(c.ids) > 1 || c.plaintext
}

// Stale says whether a stored value is under another key than the one in use, or
// not encrypted. It looks at nothing but the beginning.
func (r *Ring) Stale(stored []byte) bool { return !bytes.HasPrefix(stored, r.current.Load().write) }

// IsEncrypted says whether a stored value was written by a Ring.
func IsEncrypted(stored []byte) bool { return bytes.HasPrefix(stored, []byte(Prefix)) }
