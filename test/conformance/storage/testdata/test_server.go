// Package testserver stands in for upstream's package of this name while
// upstream's storage tests are run: where that one starts an etcd server, this
// one opens a store of ours. Its text is copied into a copy of upstream's module
// and is compiled nowhere else.
package testserver

import (
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/etcd/client/v3/kubernetes"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/feature"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"

	"sublet.dev/tenant-apiserver/etcdclient"
	"sublet.dev/tenant-apiserver/store"
)

// Config has the settings of an etcd server that upstream's tests change.
type Config struct {
	// WatchProgressNotifyInterval is how often quiet watches get a notice.
	// 0: as seldom as etcd sends them.
	WatchProgressNotifyInterval time.Duration
	// QuotaBackendBytes is how large an etcd may grow. A store without a quota
	// grows as it must.
	QuotaBackendBytes int64
}

// NewTestConfig returns the settings that most tests want.
func NewTestConfig(testing.TB) *Config { return &Config{} }

// RunEtcd opens a store for one test and returns a client of it, which counts
// reads as upstream's does. nil: the settings of NewTestConfig.
func RunEtcd(t testing.TB, cfg *Config) *kubernetes.Client {
	t.Helper()
	if cfg == nil {
		cfg = NewTestConfig(t)
	}
	s, err := store.Open(filepath.Join(t.TempDir(), "store.db"), store.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	var opts []etcdclient.Option
	if cfg.WatchProgressNotifyInterval > 0 {
		opts = append(opts, etcdclient.WithProgressInterval(cfg.WatchProgressNotifyInterval))
	}
	client := etcdclient.New(s, opts...)
	feature.DefaultFeatureSupportChecker.CheckClient(t.Context(), endpoint{client, t.Name()}, storage.RequestWatchProgress)
	recorder := storagetesting.NewKubernetesRecorder(client.Kubernetes)
	client.KV, client.Kubernetes = storagetesting.NewKVRecorder(client.KV, recorder), recorder
	return client
}

// endpoint is a client under an address. Upstream asks clients by their
// addresses what their servers can do, and ours have none; a server tells
// upstream of all its stores at once (etcdclient.Install).
type endpoint struct {
	*kubernetes.Client
	address string
}

func (e endpoint) Endpoints() []string { return []string{e.address} }
