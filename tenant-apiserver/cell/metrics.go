package cell

import (
	"errors"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/metrics/pkg/apis/metrics"
	metricsapi "sigs.k8s.io/metrics-server/pkg/api"
)

// currentMetrics asks the companion that a tenant has at the moment what its pods and
// nodes use.
type currentMetrics struct{ *hosted }

var _ metricsapi.MetricsGetter = currentMetrics{}

var errNoMetrics = errors.New("the tenant's pods are not being carried out at the moment")

func (m currentMetrics) getter() (metricsapi.MetricsGetter, error) {
	c := m.companionNow(m.ctx)
	if c == nil {
		return nil, errNoMetrics
	}
	return (*c).Metrics(m.ctx), nil
}

// GetPodMetrics implements metricsapi.MetricsGetter.
func (m currentMetrics) GetPodMetrics(tenantPods ...*metav1.PartialObjectMetadata) ([]metrics.PodMetrics, error) {
	g, err := m.getter()
	if err != nil {
		return nil, err
	}
	return g.GetPodMetrics(tenantPods...)
}

// GetNodeMetrics implements metricsapi.MetricsGetter.
func (m currentMetrics) GetNodeMetrics(tenantNodes ...*corev1.Node) ([]metrics.NodeMetrics, error) {
	g, err := m.getter()
	if err != nil {
		return nil, err
	}
	return g.GetNodeMetrics(tenantNodes...)
}
