package kube

import (
	"context"
	"fmt"
	"log/slog"
	"path"
	"reflect"
	"strings"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"

	"sublet.dev/tenant-apiserver/etcdclient"
	"sublet.dev/tenant-apiserver/internal/informer"
)

// addInformers makes the informers of the API server and its controllers, and
// what of upstream's options needs them.
func (p *parts) addInformers(ctx context.Context) error {
	var err error
	if p.informers, err = p.newInformers(ctx, resync); err != nil {
		return err
	}
	p.filled = &filled{SharedInformerFactory: p.informers}
	if err := p.run.Features.ApplyTo(p.generic, p.client, p.informers); err != nil {
		return fmt.Errorf("features: %w", err)
	}
	return nil
}

// filled are the informers as readiness sees them: those that the API server begins
// with have to know what there is. What controllers start later, with the first object
// of theirs, does not make a server unready that answers.
type filled struct {
	informers.SharedInformerFactory
	once atomic.Bool
}

// WaitForCacheSync implements informers.SharedInformerFactory.
func (f *filled) WaitForCacheSync(stop <-chan struct{}) map[reflect.Type]bool {
	if f.once.Load() {
		return nil
	}
	synced := f.SharedInformerFactory.WaitForCacheSync(stop)
	all := len(synced) > 0
	for _, ok := range synced {
		all = all && ok
	}
	f.once.Store(all)
	return synced
}

// newInformers returns informers that read the storage, and are not started.
func (p *parts) newInformers(ctx context.Context, resync time.Duration) (*informer.Factory, error) {
	client, err := etcdclient.Open(p.opts.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("informers: %w", err)
	}
	return informer.New(ctx, informer.Config{
		Source:    storageClient{client.KV, client.Watcher},
		Root:      directory(p.run.Etcd.StorageConfig.Prefix),
		Resolve:   p.storedAs,
		Client:    p.client,
		Resync:    resync,
		Transform: withoutManagedFields,
		Logger:    slog.Default().With("controlPlane", p.opts.Name),
	}), nil
}

// storageClient is what informers need of an etcd client.
type storageClient struct {
	clientv3.KV
	clientv3.Watcher
}

// storedAs says where the storage keeps the objects of a kind, as upstream's
// registries are told by the storage factory. Kinds that the API server does not
// serve are not there.
func (p *parts) storedAs(gvk schema.GroupVersionKind) (informer.Kind, bool) {
	plural, _ := meta.UnsafeGuessKindToResource(gvk)
	if !p.generic.MergedResourceConfig.ResourceEnabled(plural) {
		return informer.Kind{}, false
	}
	return informer.Kind{
		Prefix:      p.prefix(plural.GroupResource()),
		Decoder:     storedDecoder{gvk.GroupVersion()},
		Transformer: p.opts.Transformer,
	}, true
}

// prefix is what the keys of a resource's objects begin with.
func (p *parts) prefix(r schema.GroupResource) string {
	return directory(path.Join(p.run.Etcd.StorageConfig.Prefix, p.storage.ResourcePrefix(r)))
}

// directory is a path as keys below it begin.
func directory(p string) string { return "/" + strings.Trim(p, "/") + "/" }
