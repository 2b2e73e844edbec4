package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/retry"
	"k8s.io/client-go/util/workqueue"

	"sublet.dev/isolation/tenant"
)

// kubeletWorkers is how many pods the kubelets bring up at the same time.
const kubeletWorkers = 16

// What fails is tried again after these pauses.
const (
	retryAtFirst = 10 * time.Millisecond
	retryAtMost  = 500 * time.Millisecond
)

// kubelets do what the kubelets of all nodes do, but for running containers. As those
// do, they watch the Secrets of their pods; that one is there they need not ask for
// again and again.
type kubelets struct {
	host    kubernetes.Interface
	queue   workqueue.TypedRateLimitingInterface[string] // of pods
	watched informers.SharedInformerFactory
	store   cache.Indexer // of pods
	secrets cache.Store   // their metadata
	cancel  context.CancelFunc
	group   sync.WaitGroup
}

// bySecret is the index of pods by the Secrets in their volumes.
const bySecret = "secret"

func startKubelets(ctx context.Context, host kubernetes.Interface, nodes int) (*kubelets, error) {
	k := &kubelets{
		host:    host,
		queue:   workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](retryAtFirst, retryAtMost)),
		watched: informers.NewSharedInformerFactory(host, 0),
	}
	for i := range nodes {
		if err := k.addNode(ctx, fmt.Sprintf("node-%d", i)); err != nil {
			return nil, err
		}
	}
	if err := k.watch(); err != nil {
		return nil, err
	}
	ctx, k.cancel = context.WithCancel(context.WithoutCancel(ctx))
	k.watched.StartWithContext(ctx)
	for range kubeletWorkers {
		k.group.Go(func() {
			for k.next(ctx) {
			}
		})
	}
	k.group.Go(func() { k.beat(ctx, nodes) })
	return k, nil
}

// watch queues pods that changed, and those whose Secrets appeared.
func (k *kubelets) watch() error {
	pods, secrets := k.watched.Core().V1().Pods().Informer(), k.watched.Core().V1().Secrets().Informer()
	k.store, k.secrets = pods.GetIndexer(), secrets.GetStore()
	add := func(o any) {
		if key, err := cache.MetaNamespaceKeyFunc(o); err == nil {
			k.queue.Add(key)
		}
	}
	appeared := func(o any) {
		if key, err := cache.MetaNamespaceKeyFunc(o); err == nil {
			waiting, _ := k.store.ByIndex(bySecret, key) // the index was added when the informer was made
			for _, pod := range waiting {
				add(pod)
			}
		}
	}
	_, err := pods.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: add, UpdateFunc: func(_, o any) { add(o) }})
	_, err2 := secrets.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: appeared})
	return errors.Join(err, err2,
		pods.AddIndexers(cache.Indexers{bySecret: secretsOf}),
		secrets.SetTransform(func(o any) (any, error) {
			if s, ok := o.(*corev1.Secret); ok {
				return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name, UID: s.UID, ResourceVersion: s.ResourceVersion}}, nil
			}
			return o, nil
		}))
}

// secretsOf returns the keys of the Secrets in a pod's volumes.
func secretsOf(o any) (keys []string, err error) {
	pod, ok := o.(*corev1.Pod)
	if !ok {
		return nil, nil
	}
	for _, v := range pod.Spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, source := range v.Projected.Sources {
			if source.Secret == nil {
				continue
			}
			if key := pod.Namespace + "/" + source.Secret.Name; !slices.Contains(keys, key) {
				keys = append(keys, key)
			}
		}
	}
	return keys, nil
}

func (k *kubelets) stop() {
	k.cancel()
	k.queue.ShutDown()
	k.watched.Shutdown()
	k.group.Wait()
}

func (k *kubelets) addNode(ctx context.Context, name string) error {
	amounts := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("1000"), corev1.ResourceMemory: resource.MustParse("4Ti"),
		corev1.ResourcePods: resource.MustParse("100000"), corev1.ResourceEphemeralStorage: resource.MustParse("4Ti"),
	}
	_, err := k.host.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
		corev1.LabelHostname: name, corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64", tenant.GVisor.NodeLabel(): "true",
	}}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if err := k.renew(ctx, name); err != nil {
		return err
	}
	return retry.RetryOnConflict(retry.DefaultRetry, func() error { // the node controllers write it too
		node, err := k.host.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		node.Status = corev1.NodeStatus{
			Capacity: amounts, Allocatable: amounts,
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady"}},
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.10"}},
			NodeInfo:   corev1.NodeSystemInfo{KubeletVersion: "v1.37.1", OperatingSystem: "linux", Architecture: "amd64"},
		}
		_, err = k.host.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{})
		return err
	})
}

// renew renews a node's lease.
func (k *kubelets) renew(ctx context.Context, name string) error {
	leases, now, seconds := k.host.CoordinationV1().Leases(corev1.NamespaceNodeLease), metav1.NowMicro(), int32(600)
	spec := coordinationv1.LeaseSpec{HolderIdentity: &name, LeaseDurationSeconds: &seconds, RenewTime: &now}
	lease, err := leases.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: corev1.NamespaceNodeLease}}
		if _, err := k.host.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
		_, err = leases.Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}, metav1.CreateOptions{})
		return err
	}
	if err != nil {
		return err
	}
	lease.Spec = spec
	_, err = leases.Update(ctx, lease, metav1.UpdateOptions{})
	return err
}

func (k *kubelets) beat(ctx context.Context, nodes int) {
	ticker := time.NewTicker(10 * time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for i := range nodes {
			_ = k.renew(ctx, fmt.Sprintf("node-%d", i)) // the next one tries again
		}
	}
}

func (k *kubelets) next(ctx context.Context) bool {
	key, shutdown := k.queue.Get()
	if shutdown {
		return false
	}
	defer k.queue.Done(key)
	if err := k.bring(ctx, key); err != nil {
		k.queue.AddRateLimited(key)
		return true
	}
	k.queue.Forget(key)
	return true
}

// bring lets a pod run, or end.
func (k *kubelets) bring(ctx context.Context, key string) error {
	item, ok, err := k.store.GetByKey(key)
	if err != nil || !ok {
		return err
	}
	pod, ok := item.(*corev1.Pod)
	if !ok || pod.Spec.NodeName == "" {
		return nil
	}
	pods := k.host.CoreV1().Pods(pod.Namespace)
	if pod.DeletionTimestamp != nil {
		none := int64(0)
		return ignoreNotFound(pods.Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &none, Preconditions: &metav1.Preconditions{UID: &pod.UID}}))
	}
	if pod.Status.Phase == corev1.PodRunning {
		return nil
	}
	secrets, err := secretsOf(pod)
	if err != nil {
		return err
	}
	for _, key := range secrets {
		if _, there, err := k.secrets.GetByKey(key); err != nil || !there {
			return err // that it appears queues the pod: a token's is made for a pod that has a node
		}
	}
	if err := k.fetch(ctx, pod); err != nil {
		return err
	}
	_, err = pods.UpdateStatus(ctx, running(pod), metav1.UpdateOptions{})
	return ignoreNotFound(err)
}

// cached asks for what the API server has in memory, as kubelets do for what is in volumes:
// they list and watch each object, from the version "0" on (pkg/kubelet/util/manager).
var cached = metav1.GetOptions{ResourceVersion: "0"}

// fetch asks for what the volumes of a pod are filled with: a token for every one that
// is projected, and the ConfigMaps and Secrets.
func (k *kubelets) fetch(ctx context.Context, pod *corev1.Pod) error {
	seen, api := map[string]bool{}, k.host.CoreV1()
	for _, v := range pod.Spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, source := range v.Projected.Sources {
			var err error
			switch {
			case source.ServiceAccountToken != nil:
				seconds := *source.ServiceAccountToken.ExpirationSeconds
				_, err = api.ServiceAccounts(pod.Namespace).CreateToken(ctx, pod.Spec.ServiceAccountName, &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
					ExpirationSeconds: &seconds,
					BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
				}}, metav1.CreateOptions{})
			case source.Secret != nil && !seen["s/"+source.Secret.Name]:
				seen["s/"+source.Secret.Name] = true
				_, err = api.Secrets(pod.Namespace).Get(ctx, source.Secret.Name, cached)
			case source.ConfigMap != nil && !seen["c/"+source.ConfigMap.Name]:
				seen["c/"+source.ConfigMap.Name] = true
				_, err = api.ConfigMaps(pod.Namespace).Get(ctx, source.ConfigMap.Name, cached)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// running returns a pod as its kubelet shows it once it runs.
func running(pod *corev1.Pod) *corev1.Pod {
	pod = pod.DeepCopy()
	now := metav1.Now()
	pod.Status.Phase, pod.Status.StartTime, pod.Status.HostIP, pod.Status.ObservedGeneration = corev1.PodRunning, &now, "192.0.2.10", pod.Generation
	pod.Status.Conditions = []corev1.PodCondition{
		{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}, {Type: corev1.PodInitialized, Status: corev1.ConditionTrue},
		{Type: corev1.ContainersReady, Status: corev1.ConditionTrue}, {Type: corev1.PodReady, Status: corev1.ConditionTrue},
	}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "app", Image: "app:1", Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
	}}
	return pod
}
