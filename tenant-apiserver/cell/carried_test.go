package cell_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"sublet.dev/tenant-apiserver/cell"
	"sublet.dev/tenant-apiserver/measure"
)

// lists is the series of how many lists of ConfigMaps in a namespace were answered.
const lists = `apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="configmaps",scope="namespace",subresource="",verb="LIST",version="v1"}`

// numbers are a tenant's own metrics, by series.
func numbers(t *testing.T, k kubernetes.Interface) map[string]float64 {
	t.Helper()
	text, err := k.Discovery().RESTClient().Get().AbsPath("/metrics").Do(t.Context()).Raw()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		v, err := strconv.ParseFloat(strings.TrimSpace(line[i+1:]), 64)
		if err != nil {
			t.Fatal(err)
		}
		all[line[:i]] = v
	}
	return all
}

// begun says when the counting of lists began, in the format of metrics that tells.
func begun(t *testing.T, k kubernetes.Interface) string {
	t.Helper()
	format := expfmt.NewFormat(expfmt.TypeProtoDelim)
	data, err := k.Discovery().RESTClient().Get().AbsPath("/metrics").SetHeader("Accept", string(format)).Do(t.Context()).Raw()
	if err != nil {
		t.Fatal(err)
	}
	decoder := expfmt.NewDecoder(bytes.NewReader(data), format)
	for {
		var f dto.MetricFamily
		if err := decoder.Decode(&f); err != nil {
			t.Fatalf("there is no %s: %v", lists, err)
		}
		for _, m := range f.Metric {
			var text strings.Builder
			if _, err := expfmt.MetricFamilyToText(&text, &dto.MetricFamily{Name: f.Name, Type: f.Type, Metric: []*dto.Metric{m}}); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(text.String(), lists) {
				return m.Counter.CreatedTimestamp.AsTime().String()
			}
		}
	}
}

// face is the certificate that a tenant shows.
func face(t *testing.T, dir string, tn cell.Tenant) string {
	t.Helper()
	raw, err := net.Dial("unix", socket(dir, tn.ID))
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(raw, &tls.Config{ServerName: tn.ServerName, InsecureSkipVerify: true})
	defer conn.Close()
	if err := conn.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return string(conn.ConnectionState().PeerCertificates[0].Raw)
}

// list lists ConfigMaps.
func list(t *testing.T, k kubernetes.Interface) {
	t.Helper()
	if _, err := k.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
}

// occupy makes requests of several kinds, and returns when all are counted.
func occupy(t *testing.T, k kubernetes.Interface) {
	t.Helper()
	write(t, k, "counted", "1")
	for range 3 {
		list(t, k)
	}
	if _, err := k.CoreV1().Secrets("default").Get(t.Context(), "none", metav1.GetOptions{}); err == nil {
		t.Fatal("there is what is not there")
	}
	w, err := k.CoreV1().ConfigMaps("default").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.Stop()
	until(t, "the watch is counted", func() error {
		for name, v := range numbers(t, k) {
			if strings.HasPrefix(name, "apiserver_request_total") && strings.Contains(name, `verb="WATCH"`) && v == 1 {
				return nil
			}
		}
		return fs.ErrNotExist
	})
}

// goOn wants numbers to go on from what they were: those of what nobody asked for since
// are the same, and no series is gone, or new.
func goOn(t *testing.T, when string, was, is map[string]float64) {
	t.Helper()
	for name, v := range was {
		now, ok := is[name]
		gauge := !strings.HasPrefix(name, "apiserver_request_")
		scraped := strings.Contains(name, `subresource="/metrics"`)
		switch {
		case !ok:
			t.Errorf("%s: %s is gone", when, name)
		case gauge: // it is what it is now
		case now < v || now != v && !scraped:
			t.Errorf("%s: %s was %v and is %v", when, name, v, now)
		}
	}
	for name := range is {
		if _, ok := was[name]; !ok {
			t.Errorf("%s: there was no %s", when, name)
		}
	}
}

// leftover is what is kept of a tenant's numbers, in bytes; 0: nothing.
func leftover(t *testing.T, dir string, tn cell.Tenant) int64 {
	t.Helper()
	info, err := os.Stat(filepath.Join(dir, string(tn.ID), "asleep.metrics"))
	if err != nil {
		return 0
	}
	return info.Size()
}

// providers is what the provider reads as a tenant's number of lists.
func providers(t *testing.T, client *cell.Client, tn cell.Tenant) float64 {
	t.Helper()
	families, err := client.Metrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := families.Write(&text); err != nil {
		t.Fatal(err)
	}
	series := strings.Replace(lists, `,verb=`, `,tenant="`+tn.Name+`",verb=`, 1)
	for line := range strings.Lines(text.String()) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	return 0
}

// TestNumbersGoOnAfterSleep: a tenant's counters and histograms, and the certificate of its
// API server, do not tell that it slept, once in the same process and once in another.
func TestNumbersGoOnAfterSleep(t *testing.T) {
	t.Parallel()
	dir := scratch(t)
	_, client := startIn(t, dir, quiet, func(*cell.Config) {})
	a := sleeper("uid-a", "a")
	put(t, client, a)
	k, leave := visitor(t, dir, a)
	occupy(t, k)
	shown, since := face(t, dir, a), begun(t, k)
	was := numbers(t, k)
	if was[lists] != 3 {
		t.Fatalf("%v lists were counted, the test shows nothing", was[lists])
	}
	for i, when := range []string{"after it slept", "after it slept again, and its cell was replaced"} {
		leave()
		lull(t, client, a.ID)
		if n := leftover(t, dir, a); n == 0 || n > 16<<10 {
			t.Errorf("%s: %d bytes were kept", when, n)
		}
		if i > 0 {
			_, client = startIn(t, dir, quiet, func(*cell.Config) {}) // the first one does nothing any more
			if s, err := client.Put(t.Context(), a); err != nil || s.Phase != cell.Asleep {
				t.Fatalf("%+v, %v", s, err)
			}
		}
		k, leave = visitor(t, dir, a)
		goOn(t, when, was, numbers(t, k))
		if n := leftover(t, dir, a); n != 0 {
			t.Errorf("%s: %d bytes would be taken again", when, n)
		}
		if face(t, dir, a) != shown {
			t.Errorf("%s: another certificate is shown", when)
		}
		if now := begun(t, k); now != since {
			t.Errorf("%s: it is counted since %s, and was since %s", when, now, since)
		}
		list(t, k)
		before := was[lists]
		if was = numbers(t, k); was[lists] != before+1 || providers(t, client, a) != before+1 {
			t.Errorf("%s: %v lists, of which the provider knows %v, want %v", when, was[lists], providers(t, client, a), before+1)
		}
	}
	leave()
	// That it was another control plane would show.
	if _, err := client.ShrinkStore(t.Context(), a.ID); err != nil {
		t.Fatal(err)
	}
	k, leave = visitor(t, dir, a)
	defer leave()
	if is := numbers(t, k); is[lists] != 0 || face(t, dir, a) == shown {
		t.Errorf("a restart does not show: %v lists", is[lists])
	}
}

// journal keeps a log.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) has(what string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Contains(j.text.String(), what)
}

// TestWakesWithDamage: what is kept of a tenant that sleeps may be damaged; it wakes, does
// without, and the log says so.
func TestWakesWithDamage(t *testing.T) {
	t.Parallel()
	overwritten := func(data string) func(string) error {
		return func(path string) error { return os.WriteFile(path, []byte(data), 0o600) }
	}
	whole := func(string) error { return nil }
	for name, c := range map[string]struct {
		metrics, serving func(path string) error
		anew, another    bool
		log              string
	}{
		"numbers cut short": {func(path string) error { return os.Truncate(path, 100) }, whole, true, false, "counters begin anew"},
		"other certificate": {whole, overwritten("no certificate"), false, true, "another serving certificate"},
		"too large, and a directory": {overwritten(strings.Repeat("x", measure.MaxCarried+1)), func(path string) error {
			return errors.Join(os.Remove(path), os.MkdirAll(filepath.Join(path, "x"), 0o700))
		}, true, true, "can tell that it slept"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log journal
			dir := scratch(t)
			_, client := startIn(t, dir, quiet, func(c *cell.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			a := sleeper("uid-a", "a")
			put(t, client, a)
			k, leave := visitor(t, dir, a)
			list(t, k)
			shown := face(t, dir, a)
			leave()
			lull(t, client, a.ID)
			of := func(name string) string { return filepath.Join(dir, string(a.ID), "asleep."+name) }
			if err := c.metrics(of("metrics")); err != nil {
				t.Fatal(err)
			}
			if err := c.serving(of("serving")); err != nil {
				t.Fatal(err)
			}
			k, leave = visitor(t, dir, a)
			defer leave()
			list(t, k)
			if n := numbers(t, k)[lists]; n != map[bool]float64{true: 1, false: 2}[c.anew] {
				t.Errorf("%v lists are counted", n)
			}
			if (face(t, dir, a) != shown) != c.another {
				t.Errorf("another certificate is shown: %v", !c.another)
			}
			if !log.has(c.log) {
				t.Errorf("the log does not say %q", c.log)
			}
			if left, err := filepath.Glob(of("*")); err != nil || len(left) > 0 {
				t.Errorf("%q would be taken again, %v", left, err)
			}
		})
	}
}
