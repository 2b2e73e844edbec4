package server

import (
	"context"
	"net/http"

	dto "github.com/prometheus/client_model/go"

	"sublet.dev/tenant-apiserver/internal/kube"
	"sublet.dev/tenant-apiserver/measure"
)

const (
	// MetricsURL is where a tenant reads its own metrics.
	MetricsURL = "/metrics"
	// TenantMetricsURL is where the host's API has those of all tenants.
	TenantMetricsURL = "/metrics/tenants"
)

// newMeter returns what measures a tenant's requests; a host's are in upstream's
// metrics of the process.
func (c Config) newMeter(st *storage) *measure.Meter {
	if c.Host != nil {
		return nil
	}
	var size func() (int64, error)
	if st.file != nil {
		size = func() (int64, error) { return st.bytes(context.Background()) }
	}
	m := measure.New(requests, size)
	m.Resume(c.Carried.Metrics, func(err error) {
		c.logger().Warn("the tenant's counters begin anew", "error", err)
	})
	return m
}

// metricsPaths are the paths of metrics that are ours.
func (c Config) metricsPaths() map[string]kube.Path {
	switch {
	case c.meter != nil:
		return map[string]kube.Path{MetricsURL: {Handler: c.meter.Handler()}}
	case c.TenantMetrics != nil:
		return map[string]kube.Path{TenantMetricsURL: {Handler: c.TenantMetrics}}
	}
	return map[string]kube.Path{}
}

// handler is what connections are served with.
func (s *Server) handler() http.Handler {
	h := undated(s.guard.wrap(s.instance.Handler()))
	if s.config.meter != nil {
		h = s.config.meter.Wrap(h, requestLasts)
	}
	return s.first.tell(h)
}

// Metrics returns the numbers of a tenant's requests, those that were carried over
// included, without saying whose they are. They are the caller's.
func (s *Server) Metrics() ([]*dto.MetricFamily, error) {
	if s.config.meter == nil {
		return nil, nil
	}
	families, err := s.config.meter.Gatherer().Gather()
	if err != nil {
		return nil, wrap(s.config.Name, err)
	}
	return families, nil
}
