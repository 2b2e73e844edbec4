package measure

import (
	"math"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// parse reads metrics as Prometheus does; those of one family, in the order of the text.
func parse(t *testing.T, text string) []*dto.MetricFamily {
	t.Helper()
	var families []*dto.MetricFamily
	for _, part := range strings.Split(text, "# TYPE ")[1:] {
		parser := expfmt.NewTextParser(model.UTF8Validation)
		of, err := parser.TextToMetricFamilies(strings.NewReader("# TYPE " + part))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range of {
			families = append(families, f)
		}
	}
	return families
}

func format(t *testing.T, families []*dto.MetricFamily) string {
	t.Helper()
	var text strings.Builder
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
			t.Fatal(err)
		}
	}
	return text.String()
}

// histogram is the text of one with a bucket below each bound.
func histogram(labels string, bounds [2]string, counts [3]string, total string) string {
	return `h_bucket{` + labels + `,le="` + bounds[0] + `"} ` + counts[0] + `
h_bucket{` + labels + `,le="` + bounds[1] + `"} ` + counts[1] + `
h_bucket{` + labels + `,le="+Inf"} ` + counts[2] + `
h_sum{` + labels + `} ` + total + `
h_count{` + labels + `} ` + counts[2] + `
`
}

// Numbers go on from what they were.
func TestSum(t *testing.T) {
	bounds := [2]string{"0.1", "1"}
	for name, c := range map[string]struct{ before, now, want string }{
		"nothing before": {"", "# TYPE c counter\nc{a=\"x\"} 1\n", "# TYPE c counter\nc{a=\"x\"} 1\n"},
		"nothing now":    {"# TYPE c counter\nc{a=\"x\"} 1\n", "", "# TYPE c counter\nc{a=\"x\"} 1\n"},
		"counters of the same labels": {
			"# TYPE c counter\nc{a=\"x\",b=\"y\"} 40\n", "# TYPE c counter\nc{a=\"x\",b=\"y\"} 2\n", "# TYPE c counter\nc{a=\"x\",b=\"y\"} 42\n"},
		"counters of other labels, in order": {
			"# TYPE c counter\nc{a=\"x\"} 1\nc{a=\"z\"} 3\n", "# TYPE c counter\nc{a=\"w\"} 5\nc{a=\"y\"} 7\n",
			"# TYPE c counter\nc{a=\"w\"} 5\nc{a=\"x\"} 1\nc{a=\"y\"} 7\nc{a=\"z\"} 3\n"},
		"labels whose values together are the same": {
			"# TYPE c counter\nc{a=\"xy\",b=\"z\"} 1\n", "# TYPE c counter\nc{a=\"x\",b=\"yz\"} 2\n",
			"# TYPE c counter\nc{a=\"x\",b=\"yz\"} 2\nc{a=\"xy\",b=\"z\"} 1\n"},
		"families, in order": {
			"# TYPE a counter\na 1\n# TYPE c counter\nc 3\n", "# TYPE b counter\nb 2\n", "# TYPE a counter\na 1\n# TYPE b counter\nb 2\n# TYPE c counter\nc 3\n"},
		"a family of another type": {"# TYPE c counter\nc 1\n", "# TYPE c gauge\nc 2\n", "# TYPE c gauge\nc 2\n"},
		"a histogram": {
			"# TYPE h histogram\n" + histogram(`a="x"`, bounds, [3]string{"1", "3", "6"}, "20.5"),
			"# TYPE h histogram\n" + histogram(`a="x"`, bounds, [3]string{"10", "20", "30"}, "100"),
			"# TYPE h histogram\n" + histogram(`a="x"`, bounds, [3]string{"11", "23", "36"}, "120.5")},
		"a histogram of other labels": {
			"# TYPE h histogram\n" + histogram(`a="x"`, bounds, [3]string{"1", "3", "6"}, "20.5"),
			"# TYPE h histogram\n" + histogram(`a="w"`, bounds, [3]string{"10", "20", "30"}, "100"),
			"# TYPE h histogram\n" + histogram(`a="w"`, bounds, [3]string{"10", "20", "30"}, "100") + histogram(`a="x"`, bounds, [3]string{"1", "3", "6"}, "20.5")},
		"a histogram of other buckets": {
			"# TYPE h histogram\n" + histogram(`a="x"`, [2]string{"0.1", "2"}, [3]string{"1", "3", "6"}, "20.5"),
			"# TYPE h histogram\n" + histogram(`a="x"`, bounds, [3]string{"10", "20", "30"}, "100"),
			"# TYPE h histogram\n" + histogram(`a="x"`, bounds, [3]string{"10", "20", "30"}, "100")},
		"gauges": {"# TYPE g gauge\ng{a=\"x\"} 4\ng{a=\"y\"} 5\n", "# TYPE g gauge\ng{a=\"y\"} 6\n", "# TYPE g gauge\ng{a=\"x\"} 0\ng{a=\"y\"} 6\n"},
	} {
		if got := format(t, sum(parse(t, c.now), parse(t, c.before))); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, c.want)
		}
	}
}

// A sum began when the first of it did.
func TestSumBegan(t *testing.T) {
	begun := func(seconds int64) []*dto.MetricFamily {
		f := parse(t, "# TYPE c counter\nc 1\n# TYPE h histogram\n"+histogram(`a="x"`, [2]string{"0.1", "1"}, [3]string{"1", "3", "6"}, "20.5"))
		f[0].Metric[0].Counter.CreatedTimestamp = &timestamppb.Timestamp{Seconds: seconds}
		f[1].Metric[0].Histogram.CreatedTimestamp = &timestamppb.Timestamp{Seconds: seconds}
		return f
	}
	all := sum(begun(200), begun(100))
	if c, h := all[0].Metric[0].Counter, all[1].Metric[0].Histogram; c.CreatedTimestamp.Seconds != 100 || h.CreatedTimestamp.Seconds != 100 {
		t.Errorf("begun at %v and %v", c.CreatedTimestamp, h.CreatedTimestamp)
	}
}

// What no meter can have is left out, and told of; the rest is used.
func TestUnpackChecks(t *testing.T) {
	labels := func(names []string) []*dto.LabelPair {
		var all []*dto.LabelPair
		for _, name := range sorted(names) {
			value := "x"
			all = append(all, &dto.LabelPair{Name: &name, Value: &value})
		}
		return all
	}
	const total, duration = "apiserver_request_total", "apiserver_request_duration_seconds"
	made := func(change func(counter, histogram *dto.MetricFamily)) []*dto.MetricFamily {
		one, six, first, second := 1.0, uint64(6), total, duration
		h := &dto.Histogram{SampleCount: &six, SampleSum: &one}
		for i := range buckets {
			n := uint64(min(i, 6))
			h.Bucket = append(h.Bucket, &dto.Bucket{UpperBound: &buckets[i], CumulativeCount: &n})
		}
		families := []*dto.MetricFamily{
			{Name: &first, Type: dto.MetricType_COUNTER.Enum(), Metric: []*dto.Metric{{Label: labels(totalLabels), Counter: &dto.Counter{Value: &one}}}},
			{Name: &second, Type: dto.MetricType_HISTOGRAM.Enum(), Metric: []*dto.Metric{{Label: labels(durationLabels), Histogram: h}}},
		}
		change(families[0], families[1])
		return families
	}
	number := func(v float64) *float64 { return &v }
	for name, c := range map[string]struct {
		change func(counter, histogram *dto.MetricFamily)
		good   []string
	}{
		"as it should be":      {func(_, _ *dto.MetricFamily) {}, []string{total, duration}},
		"a negative counter":   {func(c, _ *dto.MetricFamily) { c.Metric[0].Counter.Value = number(-1) }, []string{duration}},
		"not a number":         {func(c, _ *dto.MetricFamily) { c.Metric[0].Counter.Value = number(math.NaN()) }, []string{duration}},
		"no counter":           {func(c, _ *dto.MetricFamily) { c.Metric[0].Counter = nil }, []string{duration}},
		"another type":         {func(c, _ *dto.MetricFamily) { c.Type = dto.MetricType_GAUGE.Enum() }, []string{duration}},
		"a label too few":      {func(c, _ *dto.MetricFamily) { c.Metric[0].Label = c.Metric[0].Label[1:] }, []string{duration}},
		"another label":        {func(c, _ *dto.MetricFamily) { *c.Metric[0].Label[0].Name = "y" }, []string{duration}},
		"the same labels":      {func(c, _ *dto.MetricFamily) { c.Metric = append(c.Metric, c.Metric[0]) }, []string{duration}},
		"the same family":      {func(c, h *dto.MetricFamily) { *h = dto.MetricFamily{Name: c.Name, Type: c.Type} }, []string{total}},
		"not UTF-8":            {func(c, _ *dto.MetricFamily) { *c.Metric[0].Label[0].Value = "\xff" }, []string{duration}},
		"a bucket too few":     {func(_, h *dto.MetricFamily) { h.Metric[0].Histogram.Bucket = h.Metric[0].Histogram.Bucket[1:] }, []string{total}},
		"another bucket":       {func(_, h *dto.MetricFamily) { h.Metric[0].Histogram.Bucket[3].UpperBound = number(7) }, []string{total}},
		"buckets that shrink":  {func(_, h *dto.MetricFamily) { h.Metric[0].Histogram.Bucket[9].CumulativeCount = new(uint64) }, []string{total}},
		"more than there were": {func(_, h *dto.MetricFamily) { h.Metric[0].Histogram.SampleCount = new(uint64) }, []string{total}},
		"a negative sum":       {func(_, h *dto.MetricFamily) { h.Metric[0].Histogram.SampleSum = number(-1) }, []string{total}},
	} {
		packed, err := pack(made(c.change))
		if err != nil {
			t.Fatal(err)
		}
		families, err := unpack(packed)
		var got []string
		for _, f := range families {
			got = append(got, f.GetName())
		}
		if strings.Join(got, " ") != strings.Join(c.good, " ") || (err == nil) != (len(c.good) == 2) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
