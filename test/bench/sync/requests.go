package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// requests counts what the syncers ask both sides.
type requests struct {
	mu sync.Mutex
	by map[string]int // guarded by mu
}

// wrap counts the requests of a syncer's client to a side, and takes the processor time
// of those to the tenant's API, which is in this process, for the API's.
func (q *requests) wrap(side string) func(http.RoundTripper) http.RoundTripper {
	return func(next http.RoundTripper) http.RoundTripper { return &asking{q, side, next} }
}

type asking struct {
	requests *requests
	side     string
	next     http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (a *asking) RoundTrip(r *http.Request) (*http.Response, error) {
	var answer *http.Response
	var err error
	if a.side == "tenant" {
		as(partTenants, partSyncers, func() { answer, err = a.next.RoundTrip(r) })
	} else {
		answer, err = a.next.RoundTrip(r)
	}
	code := "failed"
	if err == nil {
		code = fmt.Sprint(answer.StatusCode)
	}
	a.requests.mu.Lock()
	defer a.requests.mu.Unlock()
	a.requests.by[a.side+" "+r.Method+" "+kindOf(r.URL.Path)+" "+code]++
	return answer, err
}

// kindOf names the resource of an API's path, with its subresource.
func kindOf(path string) string {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	if at := slices.Index(parts, "namespaces"); at >= 0 && len(parts) > at+2 {
		parts = parts[at+2:]
	} else if len(parts) > 2 {
		parts = parts[2:]
	}
	if len(parts) > 2 {
		return parts[0] + "/" + parts[2]
	}
	return parts[0]
}

// take returns what was counted, and begins anew.
func (q *requests) take() map[string]int {
	q.mu.Lock()
	defer q.mu.Unlock()
	taken := q.by
	q.by = map[string]int{}
	return taken
}

// printRequests tells the requests of somebody for each of some pods, the most frequent
// first.
func printRequests(whose string, counted map[string]int, pods int) {
	all := 0
	for _, what := range slices.SortedFunc(maps.Keys(counted), func(a, b string) int { return counted[b] - counted[a] }) {
		all += counted[what]
		if per := float64(counted[what]) / float64(pods); per >= 0.05 {
			fmt.Printf("# %s %.2f %s\n", whose, per, what)
		}
	}
	fmt.Printf("value %s %.2f requests/pod\n", whose, float64(all)/float64(pods))
}

// answered asks the host's API server how many requests it has answered, by what they
// were: also those of others than syncers, and its own, as for quotas.
func (w *world) answered(ctx context.Context) (map[string]int, error) {
	text, err := w.host.CoreV1().RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return nil, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("the host's metrics: %w", err)
	}
	by := map[string]int{}
	for _, m := range families["apiserver_request_total"].GetMetric() {
		said := map[string]string{}
		for _, l := range m.GetLabel() {
			said[l.GetName()] = l.GetValue()
		}
		what := path.Join(said["resource"], said["subresource"])
		by[said["verb"]+" "+what+" "+said["code"]] += int(m.GetCounter().GetValue())
	}
	return by, nil
}
