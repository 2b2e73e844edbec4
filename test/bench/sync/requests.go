package main

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
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

// printRequests tells the requests for each of some pods, the most frequent first.
func printRequests(counted map[string]int, pods int) {
	all := 0
	for _, what := range slices.SortedFunc(maps.Keys(counted), func(a, b string) int { return counted[b] - counted[a] }) {
		all += counted[what]
		if per := float64(counted[what]) / float64(pods); per >= 0.05 {
			fmt.Printf("# requests/pod %.2f %s\n", per, what)
		}
	}
	fmt.Printf("value requests/pod %.2f requests\n", float64(all)/float64(pods))
}
