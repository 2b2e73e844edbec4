package measure

import (
	"cmp"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
)

// sum returns the numbers that a meter has now together with those of one before it, in
// the order in which they are gathered. Counters and histograms go on from what they
// were, and have begun when they did. A gauge is what it is now: 0 if nothing is left of
// what it measures. Both arguments are taken over; before has been checked.
func sum(now, before []*dto.MetricFamily) []*dto.MetricFamily {
	for _, old := range before {
		zeroGauges(old)
		i := slices.IndexFunc(now, func(f *dto.MetricFamily) bool { return f.GetName() == old.GetName() })
		if i < 0 {
			now = append(now, old)
			continue
		}
		sumFamily(now[i], old)
	}
	slices.SortFunc(now, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
	return now
}

// sumFamily adds the metrics of another family of the same name and type to one.
func sumFamily(now, before *dto.MetricFamily) {
	if now.GetType() != before.GetType() {
		return
	}
	at := make(map[string]*dto.Metric, len(now.Metric))
	for _, m := range now.Metric {
		at[keyOf(m)] = m
	}
	for _, old := range before.Metric {
		if m := at[keyOf(old)]; m != nil {
			sumMetric(m, old)
		} else {
			now.Metric = append(now.Metric, old)
		}
	}
	slices.SortFunc(now.Metric, func(a, b *dto.Metric) int {
		return slices.CompareFunc(a.Label, b.Label, func(a, b *dto.LabelPair) int {
			return cmp.Or(strings.Compare(a.GetName(), b.GetName()), strings.Compare(a.GetValue(), b.GetValue()))
		})
	})
}

// sumMetric adds what a metric of the same labels was. A histogram of other buckets
// cannot be added.
func sumMetric(now, before *dto.Metric) {
	if c, old := now.Counter, before.Counter; c != nil && old != nil {
		value := c.GetValue() + old.GetValue()
		c.Value = &value
		c.CreatedTimestamp = cmp.Or(old.CreatedTimestamp, c.CreatedTimestamp)
	}
	h, old := now.Histogram, before.Histogram
	if h == nil || old == nil || !slices.EqualFunc(h.Bucket, old.Bucket, sameBound) {
		return
	}
	count, total := h.GetSampleCount()+old.GetSampleCount(), h.GetSampleSum()+old.GetSampleSum()
	h.SampleCount, h.SampleSum = &count, &total
	for i, b := range h.Bucket {
		n := b.GetCumulativeCount() + old.Bucket[i].GetCumulativeCount()
		b.CumulativeCount = &n
	}
	h.CreatedTimestamp = cmp.Or(old.CreatedTimestamp, h.CreatedTimestamp)
}

func sameBound(a, b *dto.Bucket) bool { return a.GetUpperBound() == b.GetUpperBound() }

// zeroGauges makes gauges those of something of which nothing is left.
func zeroGauges(f *dto.MetricFamily) {
	for _, m := range f.Metric {
		if m.Gauge != nil {
			m.Gauge = &dto.Gauge{Value: new(float64)}
		}
	}
}

// keyOf tells metrics of a family apart.
func keyOf(m *dto.Metric) string {
	var key strings.Builder
	for _, l := range m.Label {
		key.WriteString(l.GetName() + "\xff" + l.GetValue() + "\xff") // no UTF-8 has that
	}
	return key.String()
}
