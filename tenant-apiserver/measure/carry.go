package measure

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"unicode/utf8"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/encoding/protodelim"
)

const (
	// MaxCarried is how many bytes Carry returns at most.
	MaxCarried = 1 << 20
	// maxUnpacked is how many bytes they are at most when they are unpacked.
	maxUnpacked = 16 << 20
)

// shape is what the metrics of a family have in common.
type shape struct {
	kind   dto.MetricType
	labels []string // in order
}

// kept are the families that are carried over. How large the storage is is asked anew.
var kept = map[string]shape{
	"apiserver_request_total":             {dto.MetricType_COUNTER, sorted(totalLabels)},
	"apiserver_request_duration_seconds":  {dto.MetricType_HISTOGRAM, sorted(durationLabels)},
	"apiserver_longrunning_requests":      {dto.MetricType_GAUGE, sorted(kindLabels)},
	"apiserver_current_inflight_requests": {dto.MetricType_GAUGE, sorted(inflightLabels)},
}

func sorted(names []string) []string {
	names = slices.Clone(names)
	slices.Sort(names)
	return names
}

// pack returns families as bytes: how many counters there are, as a varint, and all of
// them as protobuf, each with its length before it, with gzip.
func pack(families []*dto.MetricFamily) ([]byte, error) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	counters := 0
	for _, f := range families {
		if _, ok := kept[f.GetName()]; !ok {
			continue
		}
		if f.GetType() == dto.MetricType_COUNTER {
			counters += len(f.Metric)
		}
		if _, err := protodelim.MarshalTo(z, f); err != nil {
			return nil, fmt.Errorf("pack metrics: %w", err)
		}
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("pack metrics: %w", err)
	}
	if packed.Len() > MaxCarried-binary.MaxVarintLen64 {
		return nil, fmt.Errorf("pack metrics: they are %d bytes, more than are kept", packed.Len())
	}
	return append(binary.AppendUvarint(nil, uint64(counters)), packed.Bytes()...), nil
}

// countersIn returns how many counters pack says that there are.
func countersIn(packed []byte) int {
	n, _ := binary.Uvarint(packed)
	return int(min(n, MaxSeries))
}

// unpack returns what pack was given, as far as it can be used; the error says what
// cannot.
func unpack(packed []byte) ([]*dto.MetricFamily, error) {
	_, n := binary.Uvarint(packed)
	if n <= 0 {
		return nil, errors.New("unpack metrics: they are cut short")
	}
	z, err := gzip.NewReader(bytes.NewReader(packed[n:]))
	if err != nil {
		return nil, fmt.Errorf("unpack metrics: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(z, maxUnpacked+1)) // with its checksum
	if err != nil {
		return nil, fmt.Errorf("unpack metrics: %w", err)
	}
	if len(data) > maxUnpacked {
		return nil, errors.New("unpack metrics: they are too many")
	}
	var families []*dto.MetricFamily
	var odd error
	from := bufio.NewReader(bytes.NewReader(data))
	for {
		f := &dto.MetricFamily{}
		err := protodelim.UnmarshalOptions{MaxSize: maxUnpacked}.UnmarshalFrom(from, f)
		if errors.Is(err, io.EOF) {
			return families, odd
		}
		if err != nil {
			return nil, fmt.Errorf("unpack metrics: %w", err)
		}
		if slices.ContainsFunc(families, func(o *dto.MetricFamily) bool { return o.GetName() == f.GetName() }) {
			err = errors.New("it is there twice")
		} else {
			err = check(f)
		}
		if err != nil {
			odd = errors.Join(odd, fmt.Errorf("metric %q: %w", f.GetName(), err))
			continue
		}
		families = append(families, f)
	}
}

// check returns why a family cannot be that of a meter.
func check(f *dto.MetricFamily) error {
	want, ok := kept[f.GetName()]
	if !ok || f.GetType() != want.kind {
		return errors.New("it is not one that is carried over")
	}
	seen := make(map[string]struct{}, len(f.Metric))
	for _, m := range f.Metric {
		if !slices.EqualFunc(m.Label, want.labels, func(l *dto.LabelPair, name string) bool {
			return l.GetName() == name && utf8.ValidString(l.GetValue())
		}) {
			return errors.New("it has other labels")
		}
		key := keyOf(m)
		if _, ok := seen[key]; ok {
			return errors.New("it has the same labels twice")
		}
		seen[key] = struct{}{}
		if !sound(m, want.kind) {
			return errors.New("its numbers cannot be")
		}
	}
	return nil
}

// sound says whether a metric can be one of this kind.
func sound(m *dto.Metric, kind dto.MetricType) bool {
	switch kind {
	case dto.MetricType_COUNTER:
		return m.Counter != nil && positive(m.Counter.GetValue())
	case dto.MetricType_GAUGE:
		return m.Gauge != nil
	}
	h := m.Histogram
	if h == nil || len(h.Bucket) != len(buckets) || !positive(h.GetSampleSum()) || h.GetSampleCount() > 1<<53 {
		return false
	}
	last := uint64(0)
	for i, b := range h.Bucket {
		if b.GetUpperBound() != buckets[i] || b.GetCumulativeCount() < last {
			return false
		}
		last = b.GetCumulativeCount()
	}
	return last <= h.GetSampleCount()
}

// positive says whether a number is one to which others can be added.
func positive(v float64) bool { return v >= 0 && !math.IsInf(v, 1) }
