package etcdclient

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"
	_ "unsafe" // for go:linkname

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/feature"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"

	"sublet.dev/tenant-apiserver/store"
)

// newETCD3Client is the variable of upstream's storage factory through which
// every etcd client of an API server is made. It is not exported; when upstream
// renames it, this one stays nil and Install says so.
//
//go:linkname newETCD3Client k8s.io/apiserver/pkg/storage/storagebackend/factory.newETCD3Client
var newETCD3Client func(storagebackend.TransportConfig) (*kubernetes.Client, error)

// DisabledFeatureGates are the gates of upstream that must be off in a server
// whose storage comes from here, by name.
//
//   - EtcdRangeStream: streams work, but etcd's client leaves a goroutine waiting
//     for ever when a list fails before it has read its stream to the end.
//   - UnknownVersionInteroperabilityProxy: it keeps leases of the other servers
//     of a cluster, and a tenant has one.
func DisabledFeatureGates() []string {
	return []string{string(features.EtcdRangeStream), string(features.UnknownVersionInteroperabilityProxy)}
}

var (
	// ErrUnknownEndpoint is wrapped when a client is asked for with servers that
	// are neither registered here nor those of a real etcd. Nothing is dialled.
	ErrUnknownEndpoint = errors.New("no store is registered for this endpoint")
	// ErrSeam is wrapped when upstream does not make its clients the way Install
	// relies on: the Kubernetes version and this package do not fit together.
	ErrSeam = errors.New("the storage factory of k8s.io/apiserver cannot be redirected")
)

// seam is the one of this process, since upstream's variable is one.
var seam = struct {
	mu      sync.Mutex
	dial    func(storagebackend.TransportConfig) (*kubernetes.Client, error) // upstream's own
	clients map[string]*registration
}{
	clients: map[string]*registration{},
}

// registration makes the clients of an endpoint.
type registration struct{ client func() *kubernetes.Client }

// Register makes servers configured with this endpoint (--etcd-servers) use s.
// A later registration of the same endpoint replaces an earlier one. unregister
// takes this one back; clients made meanwhile keep working while s is open.
func Register(endpoint string, s *store.Store) (unregister func()) {
	return register(endpoint, func() *kubernetes.Client {
		c := New(s)
		c.Kubernetes = tracked{c.Kubernetes}
		return c
	})
}

// RegisterEtcd makes servers configured with this endpoint use e: see Register.
func RegisterEtcd(endpoint string, e *Etcd) (unregister func()) {
	return register(endpoint, e.Client)
}

func register(endpoint string, client func() *kubernetes.Client) (unregister func()) {
	r := &registration{client}
	seam.mu.Lock()
	defer seam.mu.Unlock()
	seam.clients[endpoint] = r
	return func() {
		seam.mu.Lock()
		defer seam.mu.Unlock()
		if seam.clients[endpoint] == r {
			delete(seam.clients, endpoint)
		}
	}
}

// Install redirects upstream's storage factory to the registered stores, for
// the whole process, and makes sure that it worked. It must be called before a
// server is built; further calls return the outcome of the first. Its error
// wraps ErrSeam and is no reason to go on: upstream would dial.
func Install() error { return installOnce() }

var installOnce = sync.OnceValue(install)

func install() error {
	if newETCD3Client == nil {
		return fmt.Errorf("%w: factory.newETCD3Client is gone", ErrSeam)
	}
	seam.dial = newETCD3Client
	newETCD3Client = newClient // no client can be asked for before
	if err := checkSeam(); err != nil {
		return err
	}
	return announce()
}

// checkSeam asks upstream for a client of an endpoint that nobody has, and wants
// our refusal.
func checkSeam() error {
	const nobody = "bbolt://self-check"
	_, err := factory.CreateProber(storagebackend.Config{
		Type: storagebackend.StorageTypeETCD3, Transport: storagebackend.TransportConfig{ServerList: []string{nobody}},
	})
	if !errors.Is(err, ErrUnknownEndpoint) {
		return fmt.Errorf("%w: it answered %v", ErrSeam, err)
	}
	return nil
}

// announce tells upstream once, for all stores, that watches answer progress
// requests; it asks clients by their endpoints, and ours have none.
func announce() error {
	feature.DefaultFeatureSupportChecker.CheckClient(context.Background(), version{}, storage.RequestWatchProgress)
	deadline := time.After(10 * time.Second)
	for !feature.DefaultFeatureSupportChecker.Supports(storage.RequestWatchProgress) {
		select {
		case <-deadline:
			return fmt.Errorf("%w: it does not believe in version %s", ErrSeam, Version)
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// version is a client as far as upstream's feature check looks at one.
type version struct{}

func (version) Endpoints() []string { return []string{"bbolt://"} }

func (version) Status(context.Context, string) (*clientv3.StatusResponse, error) {
	return &clientv3.StatusResponse{Version: Version}, nil
}

// newClient stands in for upstream's function.
func newClient(c storagebackend.TransportConfig) (*kubernetes.Client, error) {
	r, dial := lookup(c.ServerList)
	switch {
	case r != nil:
		return r.client(), nil
	case allEtcd(c.ServerList):
		return dial(c)
	}
	return nil, fmt.Errorf("%w: %q", ErrUnknownEndpoint, strings.Join(c.ServerList, ","))
}

// lookup returns who makes the clients of the servers, if anybody is registered,
// and upstream's own function.
func lookup(servers []string) (*registration, func(storagebackend.TransportConfig) (*kubernetes.Client, error)) {
	seam.mu.Lock()
	defer seam.mu.Unlock()
	if len(servers) != 1 {
		return nil, seam.dial
	}
	return seam.clients[servers[0]], seam.dial
}

// allEtcd says whether all servers are addresses of an etcd.
func allEtcd(servers []string) bool {
	for _, s := range servers {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return false
		}
	}
	return len(servers) > 0
}
