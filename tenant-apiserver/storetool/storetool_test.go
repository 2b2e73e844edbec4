package storetool

import (
	"bytes"
	"path/filepath"
	"slices"
	"testing"

	"sublet.dev/tenant-apiserver/store"
	"sublet.dev/tenant-apiserver/store/backup"
)

func TestResourcePrefix(t *testing.T) {
	for key, want := range map[string]string{
		"/registry/pods/default/web":                         "/registry/pods",
		"/registry/namespaces/default":                       "/registry/namespaces",
		"/registry/services/specs/default/web":               "/registry/services/specs",
		"/registry/cert-manager.io/certificates/default/web": "/registry/cert-manager.io/certificates",
		"/registry/apiregistration.k8s.io/apiservices/v1.":   "/registry/apiregistration.k8s.io/apiservices",
		"/registry/ranges/servicenodeports":                  "/registry/ranges/servicenodeports",
		"compact_rev_key":                                    "compact_rev_key",
		"/sublet.dev/keys/1":                                 "/sublet.dev/keys",
		"":                                                   "",
		"/":                                                  "/",
		"/registry/pods/default/web/":                        "/registry/pods",
	} {
		if got := resourcePrefix(key); got != want {
			t.Errorf("%q: %q, want %q", key, got, want)
		}
	}
}

// A store and its backup tell the same.
func TestStatAndDump(t *testing.T) {
	s, err := store.Open(filepath.Join(t.TempDir(), "store.db"), store.Options{ID: "acme", NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, kv := range [][2]string{{"/registry/pods/a/x", "12345"}, {"/registry/pods/a/y", "k8s:enc:aesgcm:v1:1:xxxx"}, {"/registry/secrets/a/z", "1"}} {
		if _, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{{Put: &store.Put{Key: []byte(kv[0]), Value: []byte(kv[1])}}}}); err != nil {
			t.Fatal(err)
		}
	}
	var data bytes.Buffer
	if _, _, err := backup.Take(t.Context(), s, &data, backup.Options{}); err != nil {
		t.Fatal(err)
	}
	read := func() *backup.Reader {
		b, err := backup.NewReader(bytes.NewReader(data.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	a, err := StatStore(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	b, err := StatBackup(read(), 1)
	if err != nil || b.FileBytes != 1 {
		t.Fatal(b, err)
	}
	if a.Tenant != "acme" || a.Keys != 3 || a.Encrypted != 1 || len(a.Resources) != 2 ||
		a.Resources[0] != (Resource{"/registry/pods", 2, 65, "/registry/pods/a/y", 24}) {
		t.Errorf("%+v", a)
	}
	if !slices.Equal(a.Resources, b.Resources) || a.Revision != b.Revision || a.Bytes != b.Bytes {
		t.Errorf("%+v\n%+v", a, b)
	}
	for _, each := range []Each{OfStore(t.Context(), s), OfBackup(read())} {
		var keys []Key
		if err := Dump(each, "/registry/pods/", true, func(k Key) error { keys = append(keys, k); return nil }); err != nil {
			t.Fatal(err)
		}
		if len(keys) != 2 || string(keys[0].Value) != "12345" || !keys[1].Encrypted || keys[1].Bytes != 24 {
			t.Errorf("%+v", keys)
		}
	}
}
