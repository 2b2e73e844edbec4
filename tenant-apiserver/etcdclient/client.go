package etcdclient

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"

	"sublet.dev/tenant-apiserver/store"
)

// Version is the etcd release whose behaviour this client shows: upstream
// decides by it which features it may use.
const Version = "3.7.0"

// defaultProgressInterval is how often a quiet watch that asked for progress
// notices gets one: etcd's own default. Whoever needs one sooner asks for it
// with RequestProgress, as upstream's watch cache does.
const defaultProgressInterval = 10 * time.Minute

// Option changes a client made by New.
type Option func(*watcher)

// WithProgressInterval sets how often a watch that asked for progress notices
// gets one without asking; it must be positive.
func WithProgressInterval(d time.Duration) Option {
	return func(w *watcher) { w.interval = d }
}

// New returns a client of a store. Each call returns a new one, since upstream
// changes the fields of the clients it is given; closing it ends its watches
// and leaves the store open. It has no Cluster and no Auth.
func New(s *store.Store, opts ...Option) *kubernetes.Client {
	w := newWatcher(s)
	for _, o := range opts {
		o(w)
	}
	c := clientv3.NewCtxClient(context.Background())
	c.KV = clientv3.NewKVFromKVClient(kvStub{s}, c)
	c.Lease = clientv3.NewLeaseFromLeaseClient(leaseStub{s}, c, time.Second)
	c.Maintenance = clientv3.NewMaintenanceFromMaintenanceClient(maintenanceStub{s}, c)
	c.Watcher = w
	k := &kubernetes.Client{Client: c}
	k.Kubernetes = objects{k, s}
	return k
}
