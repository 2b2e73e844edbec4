package kube

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	genericapiserver "k8s.io/apiserver/pkg/server"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	controlplaneapiserver "k8s.io/kubernetes/pkg/controlplane/apiserver"
	kubeletclient "k8s.io/kubernetes/pkg/kubelet/client"
	"k8s.io/metrics/pkg/apis/metrics"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	metricsapi "sigs.k8s.io/metrics-server/pkg/api"
	"sigs.k8s.io/metrics-server/pkg/scraper"
	"sigs.k8s.io/metrics-server/pkg/scraper/client"
	"sigs.k8s.io/metrics-server/pkg/scraper/client/resource"
	metricsstorage "sigs.k8s.io/metrics-server/pkg/storage"
)

// The group metrics.k8s.io is upstream's metrics-server in the API server's process:
// what `kubectl top` and the autoscaler ask. A host asks its kubelets, as
// metrics-server does; a tenant's control plane asks Options.Metrics.

const (
	// scrapeEvery and scrapeTimeout are metrics-server's defaults.
	scrapeEvery   = 15 * time.Second
	scrapeTimeout = 10 * time.Second
	kubeletPort   = 10250

	hookMetricsReader = "sublet-metrics-reader"
	readerRetry       = 100 * time.Millisecond
	readerTimeout     = 30 * time.Second // as upstream's hooks for roles
)

// metricsVersion is where the group stands in discovery: behind all built-in ones, as
// metrics-server's own APIService says.
var metricsVersion = map[schema.GroupVersion]controlplaneapiserver.APIServicePriority{
	metricsv1beta1.SchemeGroupVersion: {Group: 100, Version: 100},
}

// installMetrics serves metrics.k8s.io.
func (p *parts) installMetrics(server *genericapiserver.GenericAPIServer, kubelets kubeletclient.KubeletClientConfig) error {
	getter, err := p.metricsGetter(kubelets)
	if err != nil {
		return fmt.Errorf("metrics of nodes: %w", err)
	}
	core := p.informers.Core().V1()
	if err := metricsapi.Install(getter, podMetadata{core.Pods().Lister(), ""}, core.Nodes().Lister(), server, nil); err != nil {
		return fmt.Errorf("API group of metrics: %w", err)
	}
	if p.opts.Bootstrapped {
		return nil
	}
	return server.AddPostStartHook(hookMetricsReader, func(hook genericapiserver.PostStartHookContext) error {
		return wait.PollUntilContextTimeout(hook, readerRetry, readerTimeout, true, func(ctx context.Context) (bool, error) {
			_, err := p.client.RbacV1().ClusterRoles().Create(ctx, metricsReader(), metav1.CreateOptions{})
			return err == nil || apierrors.IsAlreadyExists(err), nil
		})
	})
}

// metricsReader gives everybody who may see pods what they use, as the role of that
// name does that comes with metrics-server.
func metricsReader() *rbacv1.ClusterRole {
	role := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "system:aggregated-metrics-reader", Labels: map[string]string{}},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{metrics.GroupName}, Resources: []string{"pods", "nodes"}, Verbs: []string{"get", "list", "watch"}}},
	}
	for _, into := range []string{"admin", "edit", "view"} {
		role.Labels["rbac.authorization.k8s.io/aggregate-to-"+into] = "true"
	}
	return role
}

func (p *parts) metricsGetter(kubelets kubeletclient.KubeletClientConfig) (metricsapi.MetricsGetter, error) {
	switch {
	case p.opts.Host != nil:
		return p.scraper(kubelets)
	case p.opts.Metrics != nil:
		return p.opts.Metrics, nil
	}
	return metricsstorage.NewStorage(scrapeEvery), nil // has none
}

// scraper returns what the kubelets of all nodes were last seen to say. p.scrape has
// to run for it.
func (p *parts) scraper(config kubeletclient.KubeletClientConfig) (metricsapi.MetricsGetter, error) {
	kubelets, err := kubeletMetrics(config)
	if err != nil {
		return nil, err
	}
	seen := metricsstorage.NewStorage(scrapeEvery)
	nodes := p.informers.Core().V1().Nodes()
	all := scraper.NewScraper(nodes.Lister(), kubelets, scrapeTimeout, nil)
	p.scrape = func(ctx context.Context) {
		if !cache.WaitForCacheSync(ctx.Done(), nodes.Informer().HasSynced) {
			return
		}
		wait.UntilWithContext(ctx, func(ctx context.Context) {
			if known, err := nodes.Lister().List(labels.Everything()); err == nil && len(known) > 0 { // upstream's scraper wants one at least
				seen.Store(all.Scrape(ctx))
			}
		}, scrapeEvery)
	}
	return seen, nil
}

// kubeletMetrics is metrics-server's client of kubelets, with the API server's own
// certificate.
func kubeletMetrics(config kubeletclient.KubeletClientConfig) (client.KubeletMetricsGetter, error) {
	transport, err := kubeletclient.MakeTransport(&config)
	if err != nil {
		return nil, err
	}
	return resource.NewForConfig(&client.KubeletClientConfig{
		Client:              rest.Config{Transport: transport, Timeout: scrapeTimeout},
		AddressTypePriority: []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP},
		Scheme:              "https", DefaultPort: kubeletPort, UseNodeStatusPort: true,
	})
}

// podMetadata lists the metadata of pods, as metrics-server wants it. What it returns
// shares memory with the informer's cache and must not be written to.
type podMetadata struct {
	pods      listers.PodLister
	namespace string
}

var _ cache.GenericLister = podMetadata{}

// ByNamespace implements cache.GenericLister.
func (l podMetadata) ByNamespace(namespace string) cache.GenericNamespaceLister {
	return podMetadata{l.pods, namespace}
}

// List implements cache.GenericLister.
func (l podMetadata) List(selector labels.Selector) ([]runtime.Object, error) {
	pods, err := l.pods.Pods(l.namespace).List(selector)
	list := make([]runtime.Object, 0, len(pods))
	for _, pod := range pods {
		list = append(list, metadataOf(pod))
	}
	return list, err
}

// Get implements cache.GenericNamespaceLister.
func (l podMetadata) Get(name string) (runtime.Object, error) {
	pod, err := l.pods.Pods(l.namespace).Get(name)
	if err != nil {
		return nil, err
	}
	return metadataOf(pod), nil
}

func metadataOf(pod *corev1.Pod) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{ObjectMeta: pod.ObjectMeta}
}
