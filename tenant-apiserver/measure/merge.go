package measure

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Families are metrics by their names.
type Families map[string]*dto.MetricFamily

// Label adds a label to all metrics, which are the caller's.
func Label(families []*dto.MetricFamily, name, value string) {
	for _, f := range families {
		for _, m := range f.Metric {
			m.Label = append(m.Label, &dto.LabelPair{Name: &name, Value: &value})
			slices.SortFunc(m.Label, func(a, b *dto.LabelPair) int { return strings.Compare(a.GetName(), b.GetName()) })
		}
	}
}

// Merge adds metrics to those of the same name. No two of them may have the same
// labels.
func (all Families) Merge(families ...*dto.MetricFamily) {
	for _, f := range families {
		if have := all[f.GetName()]; have != nil {
			have.Metric = append(have.Metric, f.Metric...)
		} else {
			all[f.GetName()] = f
		}
	}
}

// ContentType is that of what Write writes.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// Write writes metrics as text, in the order of their names.
func (all Families) Write(w io.Writer) error {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if _, err := expfmt.MetricFamilyToText(w, all[name]); err != nil {
			return fmt.Errorf("write metric %s: %w", name, err)
		}
	}
	return nil
}

// Read reads what Write wrote.
func Read(r io.Reader) (Families, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(r)
	if err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	return families, nil
}
