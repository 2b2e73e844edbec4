package measure

import (
	"net/http"
	"strconv"

	dto "github.com/prometheus/client_model/go"
)

// past is what a meter goes on from. It stays packed: it is needed when somebody asks for
// the numbers, and for requests of a kind that this meter has not seen.
type past struct {
	packed   []byte
	counters int         // as packed says; 0: served and kinds of the meter have them
	lost     func(error) // told once of what cannot be used; nil: nothing more to tell
}

// Carry returns the numbers for another meter to go on from, of at most MaxCarried bytes.
func (m *Meter) Carry() ([]byte, error) {
	families, err := m.gather()
	if err != nil {
		return nil, err
	}
	return pack(families)
}

// Resume has the meter go on from what Carry of another returned: its counters and
// histograms are added to this one's. It must be called before anything is measured. What
// cannot be used is left out, and lost is told of it, at the latest when somebody asks for
// the numbers.
func (m *Meter) Resume(carried []byte, lost func(error)) {
	if len(carried) > 0 {
		m.past = past{carried, countersIn(carried), lost}
	}
}

// gather returns the numbers, those before included.
func (m *Meter) gather() ([]*dto.MetricFamily, error) {
	families, err := m.registry.Gather()
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	packed := m.past.packed
	m.mu.Unlock()
	if packed == nil {
		return families, nil
	}
	before, err := unpack(packed)
	if err != nil {
		m.mu.Lock()
		m.lose(err)
		m.mu.Unlock()
	}
	return sum(families, before), nil
}

// remember makes known what requests were served before. The caller must hold mu.
func (m *Meter) remember() {
	if m.past.counters == 0 {
		return
	}
	m.past.counters = 0
	before, err := unpack(m.past.packed)
	if err != nil {
		m.lose(err)
	}
	for _, f := range before {
		if f.GetType() != dto.MetricType_COUNTER {
			continue
		}
		for _, metric := range f.Metric {
			s := seriesOf(metric)
			m.kinds[s] = struct{}{}
			if code, err := strconv.Atoi(s.code); err == nil && code < http.StatusBadRequest && s.resource.resource != other {
				m.serve(s.resource)
			}
		}
	}
}

// lose tells, once, of what cannot be used. The caller must hold mu.
func (m *Meter) lose(err error) {
	if m.past.lost != nil {
		m.past.lost(err)
		m.past.lost = nil
	}
}

// seriesOf returns which one of apiserver_request_total it is.
func seriesOf(m *dto.Metric) series {
	of := make(map[string]string, len(m.Label))
	for _, l := range m.Label {
		of[l.GetName()] = l.GetValue()
	}
	return series{
		kind{of["verb"], resource{of["group"], of["version"], of["resource"], of["subresource"]}, of["scope"]},
		of["dry_run"], of["code"],
	}
}
