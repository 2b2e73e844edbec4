package volumes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"

	"sublet.dev/isolation/baseline"
)

// Config is what a node's volumes need. All of it is required.
type Config struct {
	// Dir holds the volumes: an absolute path without symbolic links.
	Dir string
	// NodeName is the Node object's name.
	NodeName string
	// Host reaches the host API as the agent: it reads claims, classes and nodes,
	// writes PersistentVolumes, statuses of claims and events.
	Host   *rest.Config
	Logger *slog.Logger
}

// Node is the volumes of one node. Make it with New.
type Node struct {
	config Config
	store  *Store
	client kubernetes.Interface

	claims, volumes cache.SharedIndexInformer
	factory         informers.SharedInformerFactory
	queue           workqueue.TypedRateLimitingInterface[string] // names of PersistentVolumes
}

// New opens a node's volumes and mounts them: afterwards pods can have them. A
// volume that cannot be mounted is logged, and its pods wait.
func New(ctx context.Context, c Config) (*Node, error) {
	store, err := Open(c.Dir)
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(c.Host)
	if err != nil {
		return nil, fmt.Errorf("make the volumes' client of the host API: %w", err)
	}
	names, _, err := store.List()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := store.Mount(ctx, name); err != nil {
			c.Logger.Error("a volume cannot be mounted: pods that use it wait", "volume", name, "err", err)
		}
	}
	n := &Node{config: c, store: store, client: client, factory: informers.NewSharedInformerFactory(client, 0)}
	n.claims = n.factory.Core().V1().PersistentVolumeClaims().Informer()
	n.volumes = n.factory.Core().V1().PersistentVolumes().Informer()
	n.queue = workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](firstRetry, lastRetry))
	return n, nil
}

// The pace of retries. A volume that must not grow in use grows within lastRetry
// after its last pod.
const (
	firstRetry = 500 * time.Millisecond
	lastRetry  = 15 * time.Second
)

// provisioners is how many volumes are made, and removed, at a time: it is disk work.
const provisioners = 2

// Run makes, grows and removes volumes until ctx ends. What is mounted stays.
func (n *Node) Run(ctx context.Context) error {
	if err := n.watch(); err != nil {
		return err
	}
	// Upstream's controller logs through klog's context.
	log := klog.NewContext(ctx, logr.FromSlogHandler(n.config.Logger.Handler()))
	watching, stop := context.WithCancel(log)
	defer stop()
	upstream := controller.NewProvisionController(watching, n.client, baseline.LocalProvisioner, provisioner{n},
		controller.LeaderElection(false), controller.Threadiness(provisioners), controller.AddFinalizer(true),
		controller.ClaimsInformer(n.claims), controller.VolumesInformer(n.volumes),
		controller.ClassesInformer(n.factory.Storage().V1().StorageClasses().Informer()),
		controller.RateLimiter(workqueue.NewTypedItemExponentialFailureRateLimiter[string](firstRetry, lastRetry)),
		controller.FailedProvisionThreshold(0), controller.FailedDeleteThreshold(0))
	n.factory.StartWithContext(watching)
	defer func() { stop(); n.factory.Shutdown() }()
	if !cache.WaitForCacheSync(ctx.Done(), n.claims.HasSynced, n.volumes.HasSynced) {
		return nil // ctx has ended
	}
	if err := n.recover(ctx); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(watching)
	g.Go(func() error { upstream.Run(ctx); return nil })
	g.Go(func() error {
		for n.next(ctx) {
		}
		return nil
	})
	g.Go(func() error { <-ctx.Done(); n.queue.ShutDown(); return nil })
	return g.Wait()
}

// recover removes volumes that were made for claims that are gone and never had a
// PersistentVolume. The host API is asked: a volume is not guessed away.
func (n *Node) recover(ctx context.Context) error {
	names, unpublished, err := n.store.List()
	if err != nil {
		return err
	}
	claims := map[string]bool{}
	for _, o := range n.claims.GetStore().List() {
		if claim, ok := o.(*corev1.PersistentVolumeClaim); ok {
			claims[nameFor(claim)] = true
		}
	}
	for _, name := range names {
		_, err := n.client.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
		switch {
		case err == nil:
		case !apierrors.IsNotFound(err):
			return fmt.Errorf("look for the PersistentVolume %s: %w", name, err)
		case !unpublished[name]:
			n.config.Logger.Warn("a volume has no PersistentVolume: it is kept, remove it by hand when nobody misses it", "volume", name)
		case !claims[name]:
			if err := n.store.Remove(name); err != nil {
				n.config.Logger.Warn("a volume that nobody has asked for cannot be removed yet", "volume", name, "err", err)
			}
		}
	}
	return nil
}

// nameFor is the name of a claim's PersistentVolume, as upstream's controller has it
// by default.
func nameFor(claim *corev1.PersistentVolumeClaim) string { return "pvc-" + string(claim.UID) }

// watch queues the volumes of this node whenever they or their claims change.
func (n *Node) watch() error {
	handle := func(name func(any) string) cache.ResourceEventHandlerFuncs {
		add := func(o any) {
			if key := name(o); key != "" {
				n.queue.Add(key)
			}
		}
		return cache.ResourceEventHandlerFuncs{AddFunc: add, UpdateFunc: func(_, o any) { add(o) }}
	}
	_, err := n.volumes.AddEventHandler(handle(func(o any) string {
		if v, ok := o.(*corev1.PersistentVolume); ok {
			return v.Name
		}
		return ""
	}))
	_, claimErr := n.claims.AddEventHandler(handle(func(o any) string {
		if c, ok := o.(*corev1.PersistentVolumeClaim); ok {
			return c.Spec.VolumeName
		}
		return ""
	}))
	if err := errors.Join(err, claimErr); err != nil {
		return fmt.Errorf("watch volumes: %w", err)
	}
	return nil
}

// next follows one volume; false when the queue is shut down.
func (n *Node) next(ctx context.Context) bool {
	name, shutdown := n.queue.Get()
	if shutdown {
		return false
	}
	defer n.queue.Done(name)
	if err := n.follow(ctx, name); err != nil && ctx.Err() == nil {
		if !errors.Is(err, ErrInUse) {
			n.config.Logger.Warn("a volume is not as it should be, will retry", "volume", name, "err", err)
		}
		n.queue.AddRateLimited(name)
		return true
	}
	n.queue.Forget(name)
	return true
}
