package syncer

import (
	"context"
	"fmt"

	extensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/hostcache"
)

// HostConfig is what a Host needs.
type HostConfig struct {
	// Read reads nodes, storage, priority and ingress classes, custom resource definitions, and the host namespaces of the tenants whose syncers share
	// the Host (pods, services, endpointslices, configmaps, secrets,
	// networkpolicies, ingresses, events: get, list, watch). Required.
	Read *rest.Config
	// Writes is how many writes to the host go on at a time, for all tenants. 0: 32.
	Writes int
}

// Host is what the syncers of one process share of the host: clients, the nodes, the
// classes, the names of definitions, the cache of host namespaces, and the budget of
// writes. Of that cache a syncer has the part of its own namespace (hostcache), custom
// resources included; each is watched by itself, and only while its tenant is awake: no right of the API covers some
// namespaces at once, and a cell must not be able to read those of other cells.
type Host struct {
	client   kubernetes.Interface
	metadata metadata.Interface
	shared   informers.SharedInformerFactory
	nodes    cache.SharedIndexInformer
	classes  cache.SharedIndexInformer // of storage
	ingress  cache.SharedIndexInformer // classes
	ranks    cache.SharedIndexInformer // PriorityClasses
	spaces   *hostcache.Cache
	kinds    hostKinds
	budget   *engine.Budget
	keys     *engine.Budget // of keys that are made: they take long, and all of a processor

	extensions  extensions.Interface
	objects     dynamic.Interface
	marks       metadatainformer.SharedInformerFactory
	definitions cache.SharedIndexInformer // metadata of custom resource definitions
}

// NewHost returns a Host that watches nothing yet. The configuration is copied.
func NewHost(c HostConfig) (*Host, error) {
	if c.Read == nil {
		return nil, fmt.Errorf("syncer: HostConfig.Read is missing")
	}
	plain := rest.CopyConfig(c.Read)
	plain.DisableCompression = true // the way is short, and what is compressed is all that there is
	read, err := client(plain)
	if err != nil {
		return nil, fmt.Errorf("syncer: reading client of the host: %w", err)
	}
	marks, err := metadata.NewForConfig(unlimited(c.Read))
	if err != nil {
		return nil, fmt.Errorf("syncer: metadata client of the host: %w", err)
	}
	definers, err := extensions.NewForConfig(unlimited(c.Read))
	if err != nil {
		return nil, fmt.Errorf("syncer: client of the host's definitions: %w", err)
	}
	objects, err := dynamic.NewForConfig(unlimited(c.Read))
	if err != nil {
		return nil, fmt.Errorf("syncer: client of the host's custom resources: %w", err)
	}
	names := metadatainformer.NewSharedInformerFactoryWithOptions(marks, 0, metadatainformer.WithTransform(withoutManagedFields))
	shared := informers.NewSharedInformerFactoryWithOptions(read, 0, informers.WithTransform(withoutManagedFields))
	h := &Host{
		client:   read,
		metadata: marks,
		shared:   shared,
		spaces:   hostcache.New(),
		kinds:    newHostKinds(read),
		budget:   engine.NewBudget(c.Writes),
		keys:     engine.NewBudget(1),

		extensions: definers,
		objects:    objects,
		marks:      names,
	}
	return h, h.share()
}

// share makes the informers of what all tenants of the process see.
func (h *Host) share() error {
	for informer, of := range map[*cache.SharedIndexInformer]cache.SharedIndexInformer{
		&h.nodes:       h.shared.Core().V1().Nodes().Informer(),
		&h.classes:     h.shared.Storage().V1().StorageClasses().Informer(),
		&h.ranks:       h.shared.Scheduling().V1().PriorityClasses().Informer(),
		&h.ingress:     h.shared.Networking().V1().IngressClasses().Informer(),
		&h.definitions: h.marks.ForResource(definitions).Informer(),
	} {
		shared, err := hostcache.Share(of)
		if err != nil {
			return fmt.Errorf("syncer: share an informer of the host: %w", err)
		}
		*informer = shared
	}
	return nil
}

// Stats says what the Host's cache of host namespaces holds.
func (h *Host) Stats() hostcache.Stats { return h.spaces.Stats() }

// Run watches until ctx ends, and returns when everything it started has ended. It is
// to be called once, and to outlast the syncers that share the Host.
func (h *Host) Run(ctx context.Context) error {
	h.shared.StartWithContext(ctx)
	h.marks.Start(ctx.Done())
	<-ctx.Done()
	h.shared.Shutdown()
	h.marks.Shutdown()
	return nil
}
