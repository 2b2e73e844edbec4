package measure_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"k8s.io/apimachinery/pkg/util/sets"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"

	"sublet.dev/tenant-apiserver/measure"
)

var requests = &apirequest.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}

// answering is a handler behind a meter that answers with the code in ?code=.
func answering(m *measure.Meter) http.Handler {
	return m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		code := 200
		_, _ = fmt.Sscan(r.URL.Query().Get("code"), &code)
		w.WriteHeader(code)
	}), func(r *http.Request) bool { return r.URL.Query().Has("watch") })
}

func ask(h http.Handler, method, target string) {
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(method, target, nil))
}

// text is what a scrape of the meter gives; it must be what Prometheus reads.
func text(t *testing.T, m *measure.Meter) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	families, err := measure.Read(strings.NewReader(w.Body.String()))
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range families {
		if f.GetHelp() == "" || f.GetType() == dto.MetricType_UNTYPED {
			t.Errorf("%s has no help or type", name)
		}
	}
	return w.Body.String()
}

// Requests are counted as upstream counts them.
func TestCounts(t *testing.T) {
	m := measure.New(requests, func() (int64, error) { return 4096, nil })
	h := answering(m)
	for _, r := range []struct{ method, target, want string }{
		{"GET", "/api/v1/namespaces/x/pods", `apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="pods",scope="namespace",subresource="",verb="LIST",version="v1"} 1`},
		{"POST", "/apis/apps/v1/namespaces/x/deployments?dryRun=All&code=201", `apiserver_request_total{code="201",component="apiserver",dry_run="All",group="apps",resource="deployments",scope="resource",subresource="",verb="POST",version="v1"} 1`},
		{"PUT", "/apis/apps/v1/namespaces/x/deployments/y/status", `apiserver_request_total{code="200",component="apiserver",dry_run="",group="apps",resource="deployments",scope="resource",subresource="status",verb="PUT",version="v1"} 1`},
		{"DELETE", "/api/v1/namespaces/x/pods?code=403", `apiserver_request_total{code="403",component="apiserver",dry_run="",group="",resource="pods",scope="namespace",subresource="",verb="DELETECOLLECTION",version="v1"} 1`},
		{"GET", "/api/v1/pods?watch=true", `apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="pods",scope="cluster",subresource="",verb="WATCH",version="v1"} 1`},
		{"GET", "/healthz", `apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="",scope="",subresource="/healthz",verb="GET",version=""} 1`},
	} {
		ask(h, r.method, r.target)
		if got := text(t, m); !strings.Contains(got, r.want) {
			t.Errorf("%s %s: no %s in\n%s", r.method, r.target, r.want, got)
		}
	}
	got := text(t, m)
	for _, want := range []string{
		`apiserver_request_duration_seconds_count{component="apiserver",dry_run="",group="",resource="pods",scope="namespace",subresource="",verb="LIST",version="v1"} 1`,
		`apiserver_storage_size_bytes{storage_cluster_id="etcd-0"} 4096`,
		`apiserver_current_inflight_requests{request_kind="mutating"} 0`,
		`apiserver_longrunning_requests{component="apiserver",group="",resource="pods",scope="cluster",subresource="",verb="WATCH",version="v1"} 0`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
}

// Whoever asks for what there is not makes no series, whatever he writes.
func TestBounds(t *testing.T) {
	m := measure.New(requests, nil)
	h := answering(m)
	for i := range 3000 {
		ask(h, "GET", fmt.Sprintf("/apis/g%d/v1/things?code=404", i))
		ask(h, "GET", fmt.Sprintf("/secret-%d?code=404", i))
		ask(h, "GET", fmt.Sprintf("/apis/g/v1/namespaces/n%d/things/o%d?code=403", i, i))
	}
	for _, odd := range []string{"/api/v1/%ff%fe", "/api/v1/a%22b%0a", "/apis/%e2%80%ae/v1/x", "/api/v1/" + strings.Repeat("x", 1000)} {
		ask(h, "GET", odd)
		ask(h, "GET", odd+"?watch=true")
	}
	ask(h, "GET", "/api/v1/pods")
	got := text(t, m)
	if n := strings.Count(got, "\napiserver_request_total{"); n > 20 || strings.Contains(got, "things") || strings.Contains(got, "secret-") {
		t.Errorf("%d series:\n%.3000s", n, got)
	}
	if !strings.Contains(got, `resource="pods"`) {
		t.Error("what there is is missing")
	}
	// And with as many resources as there may be.
	for i := range 2 * measure.MaxSeries {
		ask(h, "GET", fmt.Sprintf("/apis/g%d.example.org/v1/things", i))
	}
	if n := strings.Count(text(t, m), "\napiserver_request_total{"); n > measure.MaxSeries+20 {
		t.Errorf("%d series", n)
	}
}

// The numbers of several meters are told apart by a label, and are read as they were
// written.
func TestMerge(t *testing.T) {
	all := measure.Families{}
	for _, name := range []string{"a", "b"} {
		m := measure.New(requests, nil)
		ask(answering(m), "GET", "/api/v1/pods?code="+map[string]string{"a": "200", "b": "404"}[name])
		families, err := m.Gatherer().Gather()
		if err != nil {
			t.Fatal(err)
		}
		measure.Label(families, "tenant", name)
		all.Merge(families...)
	}
	var first, second bytes.Buffer
	if err := all.Write(&first); err != nil {
		t.Fatal(err)
	}
	again, err := measure.Read(bytes.NewReader(first.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Write(&second); err != nil || first.String() != second.String() {
		t.Errorf("%v:\n%s\n%s", err, first.String(), second.String())
	}
	for _, want := range []string{`subresource="",tenant="a",verb="LIST",version="v1"} 1`, `tenant="b"`} {
		if !strings.Contains(first.String(), want) {
			t.Errorf("no %s in\n%s", want, first.String())
		}
	}
	if n := strings.Count(first.String(), "# TYPE apiserver_request_total"); n != 1 {
		t.Errorf("%d families of one name", n)
	}
}
