package cell

import (
	"bytes"
	"context"
	"fmt"
	"net/http"

	dto "github.com/prometheus/client_model/go"

	"sublet.dev/tenant-apiserver/measure"
)

// labelTenant says in metrics whose they are.
const labelTenant = "tenant"

const (
	// metricPhase is 1 for the phase that a tenant is in.
	metricPhase = "sublet_tenant_phase"
	// metricOldCA is how many connections are open by certificates of the CA before the
	// present one, of tenants that trust both.
	metricOldCA = "sublet_tenant_old_ca_connections"
)

// Metrics returns the numbers of all tenants of the cell, each with its tenant's name.
func (c *Cell) Metrics() (measure.Families, error) {
	c.mu.Lock()
	s := c.snapshot()
	all := make([]*hosted, 0, len(c.hosted))
	for _, h := range c.hosted {
		all = append(all, h)
	}
	c.mu.Unlock()
	families := measure.Families{}
	for _, h := range all {
		api := h.api.Load()
		if api == nil {
			continue
		}
		of, err := api.Metrics()
		if err != nil {
			return nil, err
		}
		if n, ok := api.OldConnections(); ok {
			of = append(of, oldConnections(n))
		}
		measure.Label(of, labelTenant, h.tenant.Name)
		families.Merge(of...)
	}
	families.Merge(phases(s.Tenants))
	return families, nil
}

// oldConnections is a metric of a tenant that trusts two CAs.
func oldConnections(n int) *dto.MetricFamily {
	name, help, kind := metricOldCA, "Connections that are open by client certificates of the CA before the present one.", dto.MetricType_GAUGE
	value := float64(n)
	return &dto.MetricFamily{Name: &name, Help: &help, Type: &kind, Metric: []*dto.Metric{{Gauge: &dto.Gauge{Value: &value}}}}
}

// phases is a metric of the phases of tenants.
func phases(tenants []Status) *dto.MetricFamily {
	name, help, kind, one := metricPhase, "The phase that a tenant is in.", dto.MetricType_GAUGE, 1.0
	f := &dto.MetricFamily{Name: &name, Help: &help, Type: &kind}
	for _, t := range tenants {
		phase, label := string(t.Phase), "phase"
		f.Metric = append(f.Metric, &dto.Metric{Label: []*dto.LabelPair{{Name: &label, Value: &phase}}, Gauge: &dto.Gauge{Value: &one}})
		measure.Label([]*dto.MetricFamily{{Metric: f.Metric[len(f.Metric)-1:]}}, labelTenant, t.Name)
	}
	return f
}

func (c *Cell) serveMetrics(w http.ResponseWriter, _ *http.Request) {
	families, err := c.Metrics()
	var text bytes.Buffer
	if err == nil {
		err = families.Write(&text)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", measure.ContentType)
	_, _ = w.Write(text.Bytes()) // the client may be gone
}

// Metrics asks for the numbers of all tenants of the cell: see [Cell.Metrics].
func (c *Client) Metrics(ctx context.Context) (measure.Families, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://cell/metrics", nil)
	if err != nil {
		return nil, fmt.Errorf("ask the cell: %w", err)
	}
	answer, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the cell: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask the cell for its metrics: %s", answer.Status)
	}
	return measure.Read(answer.Body)
}
