package server

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
)

// compact does what upstream's compactor does every five minutes.
func compact(ctx context.Context, s *Server) error {
	kv := s.rotation.st.client().KV
	r, err := kv.Get(ctx, bootstrapKey)
	if err == nil {
		_, err = kv.Compact(ctx, r.Header.Revision)
	}
	return err
}

// settled waits until only one key is left, and it is this one.
func settled(t *testing.T, s *Server, key string) {
	t.Helper()
	await(t, "end of the rotation", func(ctx context.Context) (bool, error) {
		_ = compact(ctx, s) // there may be nothing new to compact
		k := s.KeyStatus()
		return k.InUse == key && len(k.Keys) == 1 && !k.Plaintext && k.Step == "" && k.Error == "", nil
	})
}

func TestStoreThatIsNotEncryptedIsTakenOver(t *testing.T) {
	c := scratch(t, "taken", 34)
	keys := c.KeyFile
	c.KeyFile, c.rotation = "", quick
	s := start(t, c)
	fill(t, s)
	stop(t, s)
	if n := underKeys(t, c); n["plain"] < 180 || len(n) != 1 {
		t.Fatalf("values under keys: %v", n)
	}
	c.KeyFile = keys
	s = start(t, c)
	settled(t, s, "1")
	wantFilled(t, s)
	stop(t, s)
	if n := underKeys(t, c); n["1"] < 180 || len(n) != 1 {
		t.Errorf("values under keys: %v", n)
	}
	// Free space of the file may still have what was there; the next start rewrites
	// the file without it.
	if !s.rotation.st.ring.Remains() {
		t.Error("nobody knows that the file has to be rewritten")
	}
	s = start(t, c)
	if s.rotation.st.ring.Remains() {
		t.Error("the file was not rewritten")
	}
	if n := plaintext(bytesOf(t, c)); n > 0 {
		t.Errorf("the file has %d pieces of plaintext after a restart", n)
	}
	wantFilled(t, s)
	// From now on a value that is not encrypted is not taken for one of ours.
	kv := s.rotation.st.client().KV
	if _, err := kv.Put(t.Context(), "/registry/secrets/default/planted", `{"kind":"Secret","apiVersion":"v1"}`); err != nil {
		t.Fatal(err)
	}
	if _, err := client(t, s.Loopback()).CoreV1().Secrets("default").Get(t.Context(), "planted", metav1.GetOptions{}); !apierrors.IsInternalError(err) {
		t.Errorf("a planted value: error %v", err)
	}
	if _, err := kv.Delete(t.Context(), "/registry/secrets/default/planted"); err != nil {
		t.Fatal(err)
	}
	stop(t, s)
}

func wantFilled(t *testing.T, s *Server) {
	t.Helper()
	k := client(t, s.Loopback())
	if got, err := k.CoreV1().Secrets("default").Get(t.Context(), "plan", metav1.GetOptions{}); err != nil || string(got.Data["x"]) != known {
		t.Errorf("the secret: %v, error %v", got, err)
	}
	d := dynamic.NewForConfigOrDie(s.Loopback())
	await(t, "custom resource", func(ctx context.Context) (bool, error) {
		f, err := d.Resource(foos).Namespace("default").Get(ctx, "one", metav1.GetOptions{})
		if err == nil && f.GetAnnotations()["known"] != known {
			t.Errorf("the custom resource: %v", f)
		}
		return found(err)
	})
}

func TestRotationGoesOnUnderLoad(t *testing.T) {
	c := scratch(t, "rotate", 35)
	c.rotation = quick
	s := start(t, c)
	fill(t, s)
	k := client(t, s.Loopback())
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() { count(ctx, t, k, string(rune('a'+i))) })
	}
	if _, err := s.RotateKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	settled(t, s, "2")
	if n := s.KeyStatus().Rewritten; n < 180 {
		t.Errorf("only %d values were rewritten", n)
	}
	cancel()
	wg.Wait()
	wantFilled(t, s)
	stop(t, s)
	if n := underKeys(t, c); n["2"] < 180 || len(n) != 1 {
		t.Errorf("values under keys: %v", n)
	}
	s = start(t, c)
	wantFilled(t, s)
	if _, err := s.RotateKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.RotateKey(t.Context()); err != nil && !errors.Is(err, ErrRotating) {
		t.Error(err)
	}
	settled(t, s, "3")
	stop(t, s)
}

// count writes a number that only rises, and reads it back, until ctx ends.
func count(ctx context.Context, t *testing.T, k kubernetes.Interface, name string) {
	api := k.CoreV1().ConfigMaps("default")
	cm, err := api.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	for err == nil {
		cm.Data = map[string]string{"n": cm.Data["n"] + "1"}
		if len(cm.Data["n"]) > 500 {
			cm.Data["n"] = "1"
		}
		want := cm.Data["n"]
		if _, err = api.Update(ctx, cm, metav1.UpdateOptions{}); apierrors.IsConflict(err) {
			err = nil // it was rewritten in between
		}
		if err == nil {
			cm, err = api.Get(ctx, name, metav1.GetOptions{})
		}
		if err == nil && cm.Data["n"] != want && len(cm.Data["n"])+1 != len(want) && want != "1" {
			t.Errorf("read %d, wrote %d", len(cm.Data["n"]), len(want))
		}
	}
	if ctx.Err() == nil {
		t.Errorf("writing during the rotation: %v", err)
	}
}

// A crash may come between any two steps; the next start finishes what was begun.
func TestRotationIsFinishedAfterACrash(t *testing.T) {
	steps := []struct {
		name string
		do   func(ctx context.Context, st *storage, r *rotation) error
	}{
		{"key added", func(ctx context.Context, st *storage, _ *rotation) error { _, err := st.ring.Add(ctx); return err }},
		{"mark written", func(ctx context.Context, st *storage, _ *rotation) error { return st.writeMarks(ctx) }},
		{"key in use", func(_ context.Context, st *storage, _ *rotation) error { return st.ring.Use("2") }},
		{"some rewritten", func(ctx context.Context, st *storage, r *rotation) error {
			page, err := st.client().KV.Get(ctx, "/registry/", clientv3.WithPrefix(), clientv3.WithLimit(50))
			if err == nil {
				_, err = r.rewrite(ctx, page.Kvs)
			}
			return err
		}},
		{"all rewritten", func(ctx context.Context, _ *storage, r *rotation) error { _, err := r.rewriteAll(ctx); return err }},
		{"marks removed", func(ctx context.Context, st *storage, _ *rotation) error { return st.removeMarks(ctx) }},
	}
	c := scratch(t, "crash", 36)
	c.rotation = quick
	s := start(t, c)
	fill(t, s)
	stop(t, s)
	file, err := os.ReadFile(c.StorePath)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := os.ReadFile(c.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	for i, last := range steps {
		t.Run(last.name, func(t *testing.T) {
			for path, data := range map[string][]byte{c.StorePath: file, c.KeyFile: keys} {
				if err := os.WriteFile(path, data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			st, err := openStorage(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			r := newRotation(st, quick, w.a.server.log)
			for _, step := range steps[:i+1] {
				if err := step.do(t.Context(), st, r); err != nil {
					t.Fatalf("%s: %v", step.name, err)
				}
			}
			if err := st.close(); err != nil {
				t.Fatal(err)
			}
			s := start(t, c)
			wantFilled(t, s)
			settled(t, s, "2")
			wantFilled(t, s)
			stop(t, s)
			if n := underKeys(t, c); n["2"] < 180 || len(n) != 1 {
				t.Errorf("values under keys: %v", n)
			}
		})
	}
}
