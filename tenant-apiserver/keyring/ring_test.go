package keyring_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"k8s.io/apiserver/pkg/storage/value"

	"sublet.dev/tenant-apiserver/keyring"
)

func open(t *testing.T, path string, kms keyring.KMS) *keyring.Ring {
	t.Helper()
	r, err := keyring.Open(t.Context(), path, kms)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func create(t *testing.T) *keyring.Ring {
	t.Helper()
	r, err := keyring.Create(t.Context(), filepath.Join(t.TempDir(), "keys.json"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func seal(t *testing.T, r *keyring.Ring, key, plain string) []byte {
	t.Helper()
	out, err := r.TransformToStorage(t.Context(), []byte(plain), value.DefaultContext(key))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func unseal(t *testing.T, r *keyring.Ring, key string, stored []byte) (plain string, stale bool, err error) {
	t.Helper()
	out, stale, err := r.TransformFromStorage(t.Context(), stored, value.DefaultContext(key))
	return string(out), stale, err
}

func wantPlain(t *testing.T, r *keyring.Ring, key string, stored []byte, want string) {
	t.Helper()
	if got, _, err := unseal(t, r, key, stored); err != nil || got != want {
		t.Errorf("%s is %q, want %q, error %v", key, got, want, err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestValueIsBoundToItsKeyAndRing(t *testing.T) {
	r, other := create(t), create(t)
	stored := seal(t, r, "/registry/secrets/a/x", "hello")
	wantPlain(t, r, "/registry/secrets/a/x", stored, "hello")
	if !keyring.IsEncrypted(stored) || strings.Contains(string(stored), "hello") {
		t.Errorf("stored as %q", stored)
	}
	if _, _, err := unseal(t, r, "/registry/secrets/b/x", stored); err == nil {
		t.Error("a value was read in the place of another")
	}
	if _, _, err := unseal(t, other, "/registry/secrets/a/x", stored); err == nil {
		t.Error("a value was read with the key of another store")
	}
	for i := range stored {
		changed := append([]byte(nil), stored...)
		changed[i] ^= 1
		if _, _, err := unseal(t, r, "/registry/secrets/a/x", changed); err == nil {
			t.Fatalf("byte %d was changed, and the value read", i)
		}
	}
	if _, _, err := unseal(t, r, "/registry/secrets/a/x", []byte("hello")); err == nil {
		t.Error("a value that is not encrypted was read")
	}
	if again := seal(t, r, "/registry/secrets/a/x", "hello"); string(again) == string(stored) {
		t.Error("one value is stored the same way twice")
	}
}

func TestFile(t *testing.T) {
	r := create(t)
	stored := seal(t, r, "/a", "hello")
	info, err := os.Stat(r.Path())
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
	wantPlain(t, open(t, r.Path(), nil), "/a", stored, "hello")
	if _, err := keyring.Create(t.Context(), r.Path(), nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second creation: %v", err)
	}
	wantPlain(t, open(t, r.Path(), nil), "/a", stored, "hello")
	good := read(t, r.Path())
	for name, data := range map[string]string{
		"empty": "", "half": string(good[:len(good)/2]), "other": `{"a":1}`,
		"newer":      strings.Replace(string(good), `"format": 1`, `"format": 2`, 1),
		"no key":     `{"format":1,"write":"1","keys":[]}`,
		"two of one": strings.Replace(string(good), `"keys": [`, `"keys": [{"id":"1","secret":"AAAA"},`, 1),
		"short":      `{"format":1,"write":"1","keys":[{"id":"1","secret":"AAAA"}]}`,
	} {
		path := filepath.Join(t.TempDir(), "keys.json")
		must(t, os.WriteFile(path, []byte(data), 0o600))
		_, err := keyring.Open(t.Context(), path, nil)
		if !errors.Is(err, keyring.ErrCorrupt) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v", name, err)
		}
		if string(read(t, path)) != data {
			t.Errorf("%s: the file was changed", name)
		}
	}
	if _, err := keyring.Open(t.Context(), filepath.Join(t.TempDir(), "none"), nil); !errors.Is(err, keyring.ErrMissing) {
		t.Errorf("no file: %v", err)
	}
}

func TestRotation(t *testing.T) {
	r := create(t)
	first := seal(t, r, "/a", "1")
	if r.Unfinished() {
		t.Error("a new ring is unfinished")
	}
	id, err := r.Add(t.Context())
	must(t, err)
	if got := seal(t, r, "/b", "2"); r.Stale(got) || r.InUse() != "1" {
		t.Error("a key was in use before it was to be")
	}
	again := open(t, r.Path(), nil)
	if !again.Unfinished() || again.InUse() != "1" || len(again.IDs()) != 2 {
		t.Errorf("after a crash: keys %v, %s in use", again.IDs(), again.InUse())
	}
	must(t, r.Use(id))
	second := seal(t, r, "/b", "2")
	if got, stale, err := unseal(t, r, "/a", first); got != "1" || !stale || err != nil || !r.Stale(first) || r.Stale(second) {
		t.Errorf("the old value is %q, stale %v, error %v", got, stale, err)
	}
	wantPlain(t, open(t, r.Path(), nil), "/b", second, "2")
	must(t, r.Drop())
	for _, r := range []*keyring.Ring{r, open(t, r.Path(), nil)} {
		if _, _, err := unseal(t, r, "/a", first); err == nil {
			t.Error("a value under a dropped key was read")
		}
		wantPlain(t, r, "/b", second, "2")
		if r.Unfinished() || r.InUse() != "2" {
			t.Errorf("keys %v, %s in use", r.IDs(), r.InUse())
		}
	}
	if id, err := r.Add(t.Context()); id != "3" || err != nil {
		t.Errorf("the next key is %s, error %v: an ID was used again", id, err)
	}
	if err := r.Use("1"); err == nil {
		t.Error("a key that is dropped was taken into use")
	}
}

func TestPlaintextIsReadUntilItIsDropped(t *testing.T) {
	r := create(t)
	must(t, r.AcceptPlaintext())
	for _, r := range []*keyring.Ring{r, open(t, r.Path(), nil)} {
		if got, stale, err := unseal(t, r, "/a", []byte("hello")); got != "hello" || !stale || err != nil || !r.Unfinished() {
			t.Errorf("read %q, stale %v, error %v", got, stale, err)
		}
		if _, _, err := unseal(t, r, "/a", []byte(keyring.Prefix+"9:x")); err == nil {
			t.Error("a value under an unknown key was read as it is")
		}
	}
	must(t, r.Drop())
	if _, _, err := unseal(t, r, "/a", []byte("hello")); err == nil {
		t.Error("plaintext was read after it was dropped")
	}
}

// Values are written and read while keys come and go, and ciphers are replaced.
func TestConcurrentUse(t *testing.T) {
	r := create(t)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				key, plain := fmt.Sprintf("/%d/%d", i, n), fmt.Sprint(n)
				wantPlain(t, r, key, seal(t, r, key, plain), plain)
			}
		})
	}
	for range 5 {
		id, err := r.Add(t.Context())
		must(t, err)
		must(t, r.Use(id))
	}
	close(done)
	wg.Wait()
}
