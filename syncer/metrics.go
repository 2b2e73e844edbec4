package syncer

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/metrics/pkg/apis/metrics"
	"k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"sublet.dev/isolation/tenant"
)

// metricsTimeout bounds a question to the host.
const metricsTimeout = 10 * time.Second

var errNoMetrics = errors.New("the machines do not say what pods use at the moment")

// Metrics answers what the tenant's pods and nodes use. It asks the host's
// metrics.k8s.io (metrics-server's on an existing cluster) about the tenant's host
// namespace, each time somebody asks the tenant's; nothing runs in between. A node's
// use is that of the tenant's own pods on it. It implements metrics-server's
// MetricsGetter.
type Metrics struct {
	s   *Syncer
	ctx context.Context
}

// Metrics returns what answers for metrics. The end of ctx ends its questions: upstream's
// interface has no contexts.
func (s *Syncer) Metrics(ctx context.Context) Metrics { return Metrics{s, ctx} }

// GetPodMetrics returns what is known of pods; those of which nothing is are left out.
func (m Metrics) GetPodMetrics(tenantPods ...*metav1.PartialObjectMetadata) ([]metrics.PodMetrics, error) {
	used, err := m.used()
	if err != nil {
		return nil, err
	}
	var all []metrics.PodMetrics
	for _, tenantPod := range tenantPods {
		hostPod, ok := m.hostPod(tenantPod)
		if !ok {
			continue
		}
		u, ok := used[hostPod.Name]
		if !ok || u.Timestamp.Before(&hostPod.CreationTimestamp) { // of an older pod of that name
			continue
		}
		all = append(all, metrics.PodMetrics{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: tenantPod.Namespace, Name: tenantPod.Name, Labels: tenantPod.Labels, CreationTimestamp: metav1.Now(),
			},
			Timestamp: u.Timestamp, Window: u.Window, Containers: containers(u),
		})
	}
	return all, nil
}

// GetNodeMetrics returns for each node what the tenant's pods on it use. A node
// without any uses nothing.
func (m Metrics) GetNodeMetrics(tenantNodes ...*corev1.Node) ([]metrics.NodeMetrics, error) {
	used, err := m.used()
	if err != nil {
		return nil, err
	}
	all := make([]metrics.NodeMetrics, 0, len(tenantNodes))
	for _, node := range tenantNodes {
		objects, err := m.s.caches.host.pods.GetIndexer().ByIndex(byNodeName, node.Name)
		if err != nil {
			return nil, fmt.Errorf("pods of a node: %w", err)
		}
		sum := metrics.NodeMetrics{
			ObjectMeta: metav1.ObjectMeta{Name: node.Name, Labels: node.Labels, CreationTimestamp: metav1.Now()},
			Timestamp:  metav1.Now(),
			Usage:      corev1.ResourceList{corev1.ResourceCPU: {}, corev1.ResourceMemory: {}},
		}
		for _, o := range objects {
			if u, ok := used[o.(*corev1.Pod).Name]; ok {
				addUse(&sum, u)
			}
		}
		all = append(all, sum)
	}
	return all, nil
}

// hostPod finds the host pod of a pod by its name and UID.
func (m Metrics) hostPod(tenantPod *metav1.PartialObjectMetadata) (*corev1.Pod, bool) {
	host := m.s.hostPods()
	hostPod, ok := host.Cached(tenant.Name{Namespace: tenantPod.Namespace, Name: tenantPod.Name})
	if !ok {
		return nil, false
	}
	owner, err := host.Owner(hostPod)
	return hostPod, err == nil && owner == types.UID(tenantPod.UID)
}

// used asks the host, and returns what its pods use by their names.
func (m Metrics) used() (map[string]*v1beta1.PodMetrics, error) {
	ctx, cancel := context.WithTimeout(m.ctx, metricsTimeout)
	defer cancel()
	list, err := m.s.hostMetrics.PodMetricses(m.s.config.Tenant.HostNamespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		m.s.logger.Warn("the host does not say what pods use", "error", err) // it names the host's objects
		return nil, errNoMetrics
	}
	used := make(map[string]*v1beta1.PodMetrics, len(list.Items))
	for i := range list.Items {
		used[list.Items[i].Name] = &list.Items[i]
	}
	return used, nil
}

// containers copies what a host pod's containers use: they have the names of the
// tenant's.
func containers(u *v1beta1.PodMetrics) []metrics.ContainerMetrics {
	all := make([]metrics.ContainerMetrics, len(u.Containers))
	for i, c := range u.Containers {
		all[i] = metrics.ContainerMetrics{Name: c.Name, Usage: c.Usage}
	}
	return all
}

// addUse adds what a pod uses to its node. The node's time is that of the oldest.
func addUse(sum *metrics.NodeMetrics, u *v1beta1.PodMetrics) {
	if u.Timestamp.Before(&sum.Timestamp) {
		sum.Timestamp = u.Timestamp
	}
	sum.Window.Duration = max(sum.Window.Duration, u.Window.Duration)
	for _, c := range u.Containers {
		for name, total := range sum.Usage {
			total.Add(c.Usage[name])
			sum.Usage[name] = total
		}
	}
}
