package measure

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/endpoints/responsewriter"
)

// MaxSeries is how many different kinds of requests are told apart.
const MaxSeries = 1000

// other stands for what is not told apart.
const other = "other"

// buckets are upstream's, of request_duration_seconds.
var buckets = []float64{0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60}

// The labels of metrics. They are upstream's.
var (
	kindLabels     = []string{"verb", "group", "version", "resource", "subresource", "scope", "component"}
	durationLabels = append([]string{"dry_run"}, kindLabels...)
	totalLabels    = append([]string{"code"}, durationLabels...)
	inflightLabels = []string{"request_kind"}
)

// Meter measures one control plane. Its methods are safe for concurrent use.
type Meter struct {
	registry *prometheus.Registry
	total    *prometheus.CounterVec
	duration *prometheus.HistogramVec
	lasting  *prometheus.GaugeVec
	inflight *prometheus.GaugeVec
	requests apirequest.RequestInfoResolver

	mu     sync.Mutex
	served map[resource]struct{} // of which requests were served
	kinds  map[series]struct{}
	past   past
}

// resource is what a request is about.
type resource struct{ group, version, resource, subresource string }

// kind is a kind of requests.
type kind struct {
	verb string
	resource
	scope string
}

// series is one of apiserver_request_total.
type series struct {
	kind
	dry, code string
}

// New returns a meter. requests says what a request is about; size is how large the
// storage is, in bytes, nil if that is not known.
func New(requests apirequest.RequestInfoResolver, size func() (int64, error)) *Meter {
	const component = "apiserver"
	m := &Meter{
		registry: prometheus.NewRegistry(), requests: requests, served: map[resource]struct{}{}, kinds: map[series]struct{}{},
		total: prometheus.NewCounterVec(prometheus.CounterOpts{Subsystem: component, Name: "request_total",
			Help: "Requests of clients, by what they asked for and by the code of the answer."}, totalLabels),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Subsystem: component, Name: "request_duration_seconds", Buckets: buckets,
			Help: "How long requests of clients took that do not last."}, durationLabels),
		lasting: prometheus.NewGaugeVec(prometheus.GaugeOpts{Subsystem: component, Name: "longrunning_requests",
			Help: "Watches and streams of clients that are open."}, kindLabels),
		inflight: prometheus.NewGaugeVec(prometheus.GaugeOpts{Subsystem: component, Name: "current_inflight_requests",
			Help: "Requests of clients under way that do not last."}, inflightLabels),
	}
	m.registry.MustRegister(m.total, m.duration, m.lasting, m.inflight)
	if size != nil {
		m.registry.MustRegister(storage{size})
	}
	return m
}

// Gatherer gives the numbers, which are the caller's.
func (m *Meter) Gatherer() prometheus.Gatherer { return prometheus.GathererFunc(m.gather) }

// Handler answers with the numbers, in the format that the client asks for.
func (m *Meter) Handler() http.Handler {
	return promhttp.HandlerFor(m.Gatherer(), promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// Wrap measures what a handler does. lasts says which requests are not bounded in
// time.
func (m *Meter) Wrap(next http.Handler, lasts func(*http.Request) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k, dry := m.kindOf(r)
		answer := &recorder{ResponseWriter: w, code: http.StatusOK}
		w = responsewriter.WrapForHTTP1Or2(answer)
		if lasts(r) {
			known := m.known(k)
			g := m.lasting.WithLabelValues(known.labels()...)
			g.Inc()
			defer func() {
				g.Dec()
				m.count(k, dry, answer.code)
			}()
			next.ServeHTTP(w, r)
			return
		}
		g := m.inflight.WithLabelValues(readOrWrite(r))
		g.Inc()
		begun := time.Now()
		defer func() {
			g.Dec()
			k := m.count(k, dry, answer.code)
			m.duration.WithLabelValues(append([]string{dry}, k.labels()...)...).Observe(time.Since(begun).Seconds())
		}()
		next.ServeHTTP(w, r)
	})
}

// count counts an answer, and returns as what kind.
func (m *Meter) count(k kind, dry string, code int) kind {
	m.mu.Lock()
	if code < http.StatusBadRequest {
		m.serve(k.resource)
	}
	k = m.knownLocked(k)
	s := series{k, dry, strconv.Itoa(code)}
	if len(m.kinds)+m.past.counters >= MaxSeries {
		m.remember()
	}
	if _, ok := m.kinds[s]; !ok && len(m.kinds) >= MaxSeries {
		s = series{kind{verb: k.verb, resource: resource{resource: other}}, "", s.code}
	} else {
		m.kinds[s] = struct{}{}
	}
	m.mu.Unlock()
	m.total.WithLabelValues(append([]string{s.code, s.dry}, s.labels()...)...).Inc()
	return s.kind
}

// serve notes that there is a resource. The caller must hold mu.
func (m *Meter) serve(r resource) {
	if len(m.served)+m.past.counters >= MaxSeries {
		m.remember()
	}
	if r.resource != "" && len(m.served) < MaxSeries {
		m.served[r] = struct{}{}
	}
}

// known returns the kind without names of what nobody has been served.
func (m *Meter) known(k kind) kind {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.knownLocked(k)
}

// knownLocked is known for a caller that holds mu.
func (m *Meter) knownLocked(k kind) kind {
	if k.resource.resource == "" {
		return k
	}
	if _, ok := m.served[k.resource]; !ok {
		m.remember()
	}
	if _, ok := m.served[k.resource]; !ok {
		k.resource = resource{resource: other}
	}
	return k
}

func (k kind) labels() []string {
	return []string{k.verb, k.group, k.version, k.resource.resource, k.subresource, k.scope, "apiserver"}
}

// kindOf says what a request asks for, in upstream's words.
func (m *Meter) kindOf(r *http.Request) (k kind, dry string) {
	info, err := m.requests.NewRequestInfo(r)
	if err != nil {
		return kind{verb: other}, ""
	}
	if r.URL.Query().Has("dryRun") {
		dry = "All"
	}
	if !info.IsResourceRequest {
		return kind{verb: methodOf(r), resource: resource{subresource: pathOf(info.Path)}}, ""
	}
	k = kind{verb: verbOf(info, r), scope: scopeOf(info), resource: resource{info.APIGroup, info.APIVersion, info.Resource, info.Subresource}}
	for _, part := range []string{info.APIGroup, info.APIVersion, info.Resource, info.Subresource} {
		if len(part) > 253 || strings.ContainsFunc(part, notInNames) {
			k.resource = resource{resource: other}
		}
	}
	return k, dry
}

// notInNames says of which characters no name of an API or resource is made.
func notInNames(c rune) bool {
	return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '/'
}

var verbs = map[string]string{"create": "POST", "update": "PUT", "get": "GET", "list": "LIST", "watch": "WATCH",
	"patch": "PATCH", "delete": "DELETE", "deletecollection": "DELETECOLLECTION"}

func verbOf(info *apirequest.RequestInfo, r *http.Request) string {
	switch info.Subresource {
	case "exec", "attach", "portforward", "proxy":
		return "CONNECT"
	}
	if r.Method == http.MethodPatch && r.Header.Get("Content-Type") == "application/apply-patch+yaml" {
		return "APPLY"
	}
	if v := verbs[info.Verb]; v != "" {
		return v
	}
	return other
}

func methodOf(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return r.Method
	}
	return other
}

func scopeOf(info *apirequest.RequestInfo) string {
	switch {
	case info.Name != "" || info.Verb == "create":
		return "resource"
	case info.Namespace != "":
		return "namespace"
	}
	return "cluster"
}

// pathOf is the first part of a path that is no resource's, if it is one of ours.
func pathOf(path string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch first {
	case "api", "apis", "openapi", "version", "healthz", "livez", "readyz", "metrics", "logs":
		return "/" + first
	}
	return ""
}

func readOrWrite(r *http.Request) string {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return "readOnly"
	}
	return "mutating"
}

// recorder remembers an answer's code.
type recorder struct {
	http.ResponseWriter
	code  int
	wrote bool
}

var _ responsewriter.UserProvidedDecorator = (*recorder)(nil)

// Unwrap implements responsewriter.UserProvidedDecorator.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(code int) {
	if !r.wrote && code >= 200 || code == http.StatusSwitchingProtocols {
		r.code, r.wrote = code, true
	}
	r.ResponseWriter.WriteHeader(code)
}

// storage measures the storage when somebody asks.
type storage struct{ size func() (int64, error) }

var storageSize = prometheus.NewDesc("apiserver_storage_size_bytes", "How much of its room the storage uses.", []string{"storage_cluster_id"}, nil)

// Describe implements prometheus.Collector.
func (s storage) Describe(to chan<- *prometheus.Desc) { to <- storageSize }

// Collect implements prometheus.Collector.
func (s storage) Collect(to chan<- prometheus.Metric) {
	n, err := s.size()
	if err != nil {
		return // it is closing: the rest is worth having
	}
	to <- prometheus.MustNewConstMetric(storageSize, prometheus.GaugeValue, float64(n), "etcd-0")
}
