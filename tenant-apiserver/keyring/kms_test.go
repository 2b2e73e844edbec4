package keyring_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"k8s.io/kms/pkg/service"

	"sublet.dev/tenant-apiserver/keyring"
)

// plugin is a small KMS v2 plugin: it encrypts with AES-GCM under the newest of its
// keys, and decrypts with all.
type plugin struct {
	mu   sync.Mutex
	keys []cipher.AEAD
	sick bool
}

func newPlugin(t *testing.T) *plugin {
	p := &plugin{}
	p.rotate(t)
	return p
}

func (p *plugin) rotate(t *testing.T) {
	t.Helper()
	key := make([]byte, 32)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = append(p.keys, aead)
}

func (p *plugin) setSick(sick bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sick = sick
}

func (p *plugin) Status(context.Context) (*service.StatusResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := &service.StatusResponse{Version: "v2", Healthz: "ok", KeyID: strconv.Itoa(len(p.keys) - 1)}
	if p.sick {
		r.Healthz = "the HSM is on fire"
	}
	return r, nil
}

func (p *plugin) Encrypt(_ context.Context, _ string, data []byte) (*service.EncryptResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	newest := len(p.keys) - 1
	return &service.EncryptResponse{Ciphertext: p.keys[newest].Seal(nil, nil, data, nil), KeyID: strconv.Itoa(newest)}, nil
}

func (p *plugin) Decrypt(_ context.Context, _ string, r *service.DecryptRequest) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i, err := strconv.Atoi(r.KeyID)
	if err != nil || i < 0 || i >= len(p.keys) {
		return nil, errors.New("no such key")
	}
	return p.keys[i].Open(nil, nil, r.Ciphertext, nil)
}

// serve serves the plugin as Kubernetes has it, and returns a connection to it.
func (p *plugin) serve(t *testing.T) keyring.KMS {
	t.Helper()
	dir, err := os.MkdirTemp("", "kms") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	socket := filepath.Join(dir, "s")
	server := service.NewGRPCService(socket, time.Minute, p)
	ended := make(chan error, 1)
	go func() { ended <- server.ListenAndServe() }()
	kms, err := keyring.ConnectKMS(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kms.Status(t.Context()); err != nil { // which waits until it serves
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Shutdown()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return kms
}

func TestKMS(t *testing.T) {
	p := newPlugin(t)
	kms := p.serve(t)
	path := filepath.Join(t.TempDir(), "keys.json")
	r, err := keyring.Create(t.Context(), path, kms)
	if err != nil {
		t.Fatal(err)
	}
	stored := seal(t, r, "/a", "hello")
	if data := read(t, path); bytes.Contains(data, []byte(`"secret"`)) || !bytes.Contains(data, []byte(`"ciphertext"`)) {
		t.Errorf("the file has the secret itself: %s", data)
	}
	if _, err := keyring.Open(t.Context(), path, nil); !errors.Is(err, keyring.ErrKMS) {
		t.Errorf("without the KMS: %v", err)
	}
	if _, err := keyring.Open(t.Context(), path, newPlugin(t).serve(t)); !errors.Is(err, keyring.ErrKMS) {
		t.Errorf("with another KMS: %v", err)
	}
	p.setSick(true)
	if _, err := keyring.Open(t.Context(), path, kms); !errors.Is(err, keyring.ErrKMS) {
		t.Errorf("with a KMS that is not well: %v", err)
	}
	p.setSick(false)
	wantPlain(t, open(t, path, kms), "/a", stored, "hello")
	// When the KMS changes its key, the secrets are encrypted again, and the values
	// are not.
	before := read(t, path)
	p.rotate(t)
	wantPlain(t, open(t, path, kms), "/a", stored, "hello")
	if data := read(t, path); bytes.Equal(before, data) || !bytes.Contains(data, []byte(`"keyID": "1"`)) {
		t.Errorf("the secret is still under the KMS's old key: %s", data)
	}
	after := read(t, path)
	wantPlain(t, open(t, path, kms), "/a", stored, "hello")
	if !bytes.Equal(after, read(t, path)) {
		t.Error("the file was written without need")
	}
}

// Keys from before there was a KMS are encrypted by it when they are opened.
func TestKMSTakesOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	r, err := keyring.Create(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	stored := seal(t, r, "/a", "hello")
	if !bytes.Contains(read(t, path), []byte(`"secret"`)) {
		t.Error("there is no secret in the file")
	}
	wantPlain(t, open(t, path, newPlugin(t).serve(t)), "/a", stored, "hello")
	if bytes.Contains(read(t, path), []byte(`"secret"`)) {
		t.Error("the secret is still in the file")
	}
}

func TestKMSThatDoesNotAnswer(t *testing.T) {
	kms, err := keyring.ConnectKMS(t.Context(), filepath.Join(t.TempDir(), "nobody"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	path := filepath.Join(t.TempDir(), "keys.json")
	if _, err := keyring.Create(ctx, path, kms); !errors.Is(err, keyring.ErrKMS) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a file without a key was made")
	}
}
