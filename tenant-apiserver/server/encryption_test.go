package server

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"

	"sublet.dev/tenant-apiserver/keyring"
)

// quick is a rotation that a test can wait for.
var quick = rotationPace{page: 7, pause: time.Millisecond, settle: time.Millisecond, poll: time.Millisecond, retry: 10 * time.Millisecond}

const known = "attack-at-dawn-0123456789"

// fill writes an object of each way in which upstream stores one.
func fill(t *testing.T, s *Server) {
	t.Helper()
	k := client(t, s.Loopback())
	await(t, "default namespace", func(ctx context.Context) (bool, error) {
		_, err := k.CoreV1().Namespaces().Get(ctx, "default", metav1.GetOptions{})
		return found(err)
	})
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "plan"}, Data: map[string][]byte{"x": []byte(known)}}
	if _, err := k.CoreV1().Secrets("default").Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeNodePort, Ports: []corev1.ServicePort{{Port: 80}},
	}}
	if _, err := k.CoreV1().Services("default").Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	event := &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: "e"}, Message: known,
		InvolvedObject: corev1.ObjectReference{Kind: "Service", Name: "web", Namespace: "default"}}
	if _, err := k.CoreV1().Events("default").Create(t.Context(), event, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	d := dynamic.NewForConfigOrDie(s.Loopback())
	if _, err := d.Resource(crds).Create(t.Context(), fooDefinition(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, "custom resource", func(ctx context.Context) (bool, error) {
		f := foo(3)
		f.SetAnnotations(map[string]string{"known": known})
		_, err := d.Resource(foos).Namespace("default").Create(ctx, f, metav1.CreateOptions{})
		return found(err)
	})
}

// bytesOf reads everything in the directory of a store.
func bytesOf(t *testing.T, c Config) []byte {
	t.Helper()
	var all []byte
	err := filepath.WalkDir(filepath.Dir(c.StorePath), func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.Contains(path, "/pki/") {
			return err
		}
		data, err := os.ReadFile(path)
		all = append(all, data...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// plaintext counts what no encrypted store has: a known value, and the signatures
// of upstream's encodings.
func plaintext(data []byte) int {
	n := 0
	for _, s := range []string{known, "k8s\x00\n", `{"apiVersion":`, "ClusterRole\x12", "FlowSchema\x12"} {
		n += bytes.Count(data, []byte(s))
	}
	return n
}

// underKeys counts the values by the key that they are encrypted with.
func underKeys(t *testing.T, c Config) map[string]int {
	t.Helper()
	plain := c
	st, err := openFile(plain)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := st.close(); err != nil {
			t.Error(err)
		}
	}()
	all, err := st.client().KV.Get(t.Context(), "", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	n := map[string]int{}
	for _, kv := range all.Kvs {
		if string(kv.Key) == "compact_rev_key" {
			continue // a number of upstream's compactor
		}
		rest, ok := strings.CutPrefix(string(kv.Value), keyring.Prefix)
		if !ok {
			n["plain"]++
			continue
		}
		id, _, _ := strings.Cut(rest, ":")
		n[id]++
	}
	return n
}

func TestEverythingInTheFileIsEncrypted(t *testing.T) {
	c := scratch(t, "sealed", 30)
	s := start(t, c)
	fill(t, s)
	stop(t, s)
	if n := plaintext(bytesOf(t, c)); n > 0 {
		t.Errorf("the file has %d pieces of plaintext", n)
	}
	if n := underKeys(t, c); n["1"] < 180 || len(n) != 1 {
		t.Errorf("values under keys: %v", n)
	}
	info, err := os.Stat(c.KeyFile)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the keys' file: %v, error %v", info.Mode(), err)
	}
	// The same search finds what is not encrypted.
	open := scratch(t, "open", 31)
	open.KeyFile = ""
	s = start(t, open)
	fill(t, s)
	stop(t, s)
	if n := plaintext(bytesOf(t, open)); n < 200 {
		t.Errorf("the control has only %d pieces of plaintext", n)
	}
}

func TestLostKey(t *testing.T) {
	c := scratch(t, "lost", 32)
	stop(t, start(t, c))
	keys, err := os.ReadFile(c.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, c Config, says string) {
		t.Helper()
		s, err := Start(t.Context(), c)
		if err == nil {
			stop(t, s)
		}
		if !errors.Is(err, ErrKeyMissing) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: error %v", what, err)
		}
	}
	if err := os.Remove(c.KeyFile); err != nil {
		t.Fatal(err)
	}
	refused("without the file", c, c.KeyFile)
	if _, err := os.Stat(c.KeyFile); err == nil {
		t.Error("a new key was made for a store that is encrypted")
	}
	if _, err := keyring.Create(t.Context(), c.KeyFile, nil); err != nil {
		t.Fatal(err)
	}
	refused("with another's file", c, c.KeyFile)
	none := c
	none.KeyFile = ""
	refused("without encryption", none, "key 1")
	if err := os.WriteFile(c.KeyFile, keys[:len(keys)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), c); !errors.Is(err, keyring.ErrCorrupt) {
		t.Errorf("with half of the file: error %v", err)
	}
	if err := os.WriteFile(c.KeyFile, keys, 0o600); err != nil {
		t.Fatal(err)
	}
	stop(t, start(t, c))
}

// A value is bound to its place: one secret cannot be read in the place of another.
func TestMovedValue(t *testing.T) {
	c := scratch(t, "moved", 33)
	s := start(t, c)
	fill(t, s)
	defer stop(t, s)
	kv := s.rotation.st.client().KV
	r, err := kv.Get(t.Context(), "/registry/secrets/default/plan")
	if err != nil || len(r.Kvs) != 1 {
		t.Fatalf("stored secrets: %v, error %v", r, err)
	}
	if _, err := kv.Put(t.Context(), "/registry/secrets/default/copy", string(r.Kvs[0].Value)); err != nil {
		t.Fatal(err)
	}
	k := client(t, s.Loopback())
	if _, err := k.CoreV1().Secrets("default").Get(t.Context(), "copy", metav1.GetOptions{}); !apierrors.IsInternalError(err) {
		t.Errorf("the copy: error %v", err)
	}
	if got, err := k.CoreV1().Secrets("default").Get(t.Context(), "plan", metav1.GetOptions{}); err != nil || string(got.Data["x"]) != known {
		t.Errorf("the original: %v, error %v", got, err)
	}
	if _, err := kv.Delete(t.Context(), "/registry/secrets/default/copy"); err != nil {
		t.Fatal(err)
	}
}
