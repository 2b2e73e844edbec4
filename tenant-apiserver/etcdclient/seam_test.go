package etcdclient_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/apis/example"
	examplev1 "k8s.io/apiserver/pkg/apis/example/v1"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/feature"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"

	"sublet.dev/tenant-apiserver/etcdclient"
	"sublet.dev/tenant-apiserver/store"
)

// openStore opens a store in a folder of the test's own and closes it at its end.
func openStore(t testing.TB) *store.Store {
	t.Helper()
	s, err := store.Open(filepath.Join(t.TempDir(), "store.db"), store.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func transport(endpoint string) storagebackend.Config {
	c := storagebackend.NewDefaultConfig("/registry", codecs.LegacyCodec(examplev1.SchemeGroupVersion))
	c.Type = storagebackend.StorageTypeETCD3
	c.Transport.ServerList = []string{endpoint}
	return *c
}

// TestSeam builds storage for two tenants as an API server does, through
// upstream's factory. It fails when upstream moves the variable that Install
// replaces, or makes clients past it.
func TestSeam(t *testing.T) {
	if err := etcdclient.Install(); err != nil {
		t.Fatal(err)
	}
	if !feature.DefaultFeatureSupportChecker.Supports(storage.RequestWatchProgress) {
		t.Error("upstream does not know that watches answer progress requests")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	apis := map[string]storage.Interface{}
	for _, tenant := range []string{"a", "b"} {
		endpoint := "bbolt://" + tenant
		t.Cleanup(etcdclient.Register(endpoint, openStore(t)))
		c := transport(endpoint)
		resource := schema.GroupResource{Resource: "pods"}
		api, destroy, err := factory.Create(*c.ForResource(resource),
			func() runtime.Object { return &example.Pod{} }, func() runtime.Object { return &example.PodList{} }, "/pods")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(destroy)
		apis[tenant] = api
	}

	w, err := apis["a"].Watch(ctx, "/pods/", storage.ListOptions{Recursive: true, Predicate: storage.Everything})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	pod := &example.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", Labels: map[string]string{"of": "a"}}}
	asked := request.WithLatencyTrackers(ctx)
	if err := apis["a"].Create(asked, "/pods/ns/web", pod, &example.Pod{}, 0); err != nil {
		t.Fatal(err)
	}
	if trackers, ok := request.LatencyTrackersFrom(asked); !ok || trackers.StorageTracker.GetLatency() == 0 {
		t.Error("a create is not counted as time in storage")
	}
	select {
	case e := <-w.ResultChan():
		if e.Type != watch.Added || e.Object.(*example.Pod).Name != "web" {
			t.Errorf("watch gave %v %v", e.Type, e.Object)
		}
	case <-ctx.Done():
		t.Fatal("no event")
	}

	for tenant, want := range map[string]int{"a": 1, "b": 0} {
		var list example.PodList
		if err := apis[tenant].GetList(ctx, "/pods/", storage.ListOptions{Recursive: true, Predicate: storage.Everything}, &list); err != nil {
			t.Fatal(err)
		}
		if len(list.Items) != want {
			t.Errorf("tenant %s sees %d pods, want %d", tenant, len(list.Items), want)
		}
	}
	var got example.Pod
	if err := apis["a"].Get(ctx, "/pods/ns/web", storage.GetOptions{}, &got); err != nil || got.Labels["of"] != "a" {
		t.Errorf("Get: %v, %v", got.Labels, err)
	}
}

// TestSeamProbes checks the other users of the factory: health and size.
func TestSeamProbes(t *testing.T) {
	if err := etcdclient.Install(); err != nil {
		t.Fatal(err)
	}
	s := openStore(t)
	defer etcdclient.Register("bbolt://probed", s)()
	prober, err := factory.CreateProber(transport("bbolt://probed"))
	if err != nil {
		t.Fatal(err)
	}
	defer prober.Close()
	if err := prober.Probe(t.Context()); err != nil {
		t.Errorf("a good store is not healthy: %v", err)
	}
	monitor, err := factory.CreateMonitor(transport("bbolt://probed"))
	if err != nil {
		t.Fatal(err)
	}
	defer monitor.Close()
	if m, err := monitor.Monitor(t.Context()); err != nil || m.Size <= 0 {
		t.Errorf("size %d, %v", m.Size, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := prober.Probe(t.Context()); err == nil {
		t.Error("a closed store is healthy")
	}
}

// TestUnknownEndpoints checks that nothing but a real etcd is ever dialled.
func TestUnknownEndpoints(t *testing.T) {
	if err := etcdclient.Install(); err != nil {
		t.Fatal(err)
	}
	unregister := etcdclient.Register("bbolt://gone", openStore(t))
	unregister()
	for _, servers := range []string{
		"bbolt://gone", "bbolt://nobody", "", "127.0.0.1:2379", "unix:///tmp/x.sock", "http://", "bbolt://nobody,http://127.0.0.1:1",
	} {
		c := transport("")
		c.Transport.ServerList = strings.Split(servers, ",")
		if _, err := factory.CreateProber(c); !errors.Is(err, etcdclient.ErrUnknownEndpoint) {
			t.Errorf("%q: %v", servers, err)
		}
	}
	if _, err := factory.CreateProber(storagebackend.Config{}); !errors.Is(err, etcdclient.ErrUnknownEndpoint) {
		t.Errorf("no servers: %v", err)
	}
}

// TestDisabledFeatureGates fails when upstream renames a gate.
func TestDisabledFeatureGates(t *testing.T) {
	for _, name := range etcdclient.DisabledFeatureGates() {
		if !knownGate(name) {
			t.Errorf("upstream has no feature gate %s", name)
		}
	}
}
