package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"sublet.dev/syncer"
)

// silent are streams that nobody reads.
func silent() streams { return streams{in: strings.NewReader(""), out: io.Discard, err: io.Discard} }

func TestExplainArguments(t *testing.T) {
	for _, args := range [][]string{
		{"explain"}, {"explain", "acme"}, {"explain", "acme", "web"}, {"explain", "acme", "node/shop/web"}, {"explain", "--from-host", "node/a/b"}, {"explain", "acme", "pod/shop"},
		{"explain", "acme", "pod//web"}, {"explain", "--from-host", "web"}, {"explain", "--from-host", "pod/a/b/c"}, {"explain", "--from-host", "a/"},
		{"explain", "acme", "--from-host", "a/b"}, {"explain", "Not A Name", "pod/shop/web"}, {"explain", "acme", "pod/shop/web", "-o", "name"},
	} {
		if code := run(t.Context(), append(args, "--data-dir", t.TempDir()), silent()); code != exitUsage {
			t.Errorf("%q: exit code %d", args, code)
		}
	}
	// What is right gets as far as the host, which is not there.
	for _, args := range [][]string{{"acme", "pod/shop/web"}, {"acme", "svc/shop/web"}, {"acme", "certificates.example.org/shop/web"}, {"--from-host", "a/b"}, {"--from-host", "netpol/a/b"}} {
		if code := run(t.Context(), append(append([]string{"explain"}, args...), "--data-dir", t.TempDir()), silent()); code == exitUsage || code == exitOK {
			t.Errorf("%q: exit code %d", args, code)
		}
	}
}

// The cell's own API goes on beside what is added to it, and a tenant without a syncer
// is told so.
func TestSyncersAnswer(t *testing.T) {
	all := newSyncers()
	handler := all.with(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	ask := func(path string) int {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		return w.Code
	}
	if code := ask("/tenants/a"); code != http.StatusTeapot {
		t.Errorf("the cell's own answer: %d", code)
	}
	if code := ask("/tenants/a/explain?name=x&namespace=y"); code != http.StatusServiceUnavailable {
		t.Errorf("without a syncer: %d", code)
	}
	first, second := &syncer.Syncer{}, &syncer.Syncer{}
	all.put("a", first)
	all.put("a", second)
	all.remove("a", first)
	if got, ok := all.get("a"); !ok || got != second {
		t.Error("the end of an old syncer removed the new one")
	}
	all.remove("a", second)
	if _, ok := all.get("a"); ok {
		t.Error("a syncer that ended is kept")
	}
	if err := askCell(t.Context(), filepath.Join(t.TempDir(), "none"), "/x", nil); err == nil {
		t.Error("a cell that is not there answered")
	}
}

// TestHeld: a pod that nobody refused may still wait for others, and the reader sees it.
func TestHeld(t *testing.T) {
	for want, e := range map[string]*syncer.Explanation{
		"Held: no":                 {},
		"Held: hostNetwork":        {Held: "hostNetwork"},
		"Held: number 3 of the te": {Line: 3},
	} {
		var out strings.Builder
		if err := (&app{streams: streams{out: &out}}).printExplanation(e); err != nil {
			t.Fatal(err)
		}
		if seen := strings.Join(strings.Fields(out.String()), " "); !strings.Contains(seen, want) {
			t.Errorf("%q is not in:\n%s", want, out.String())
		}
	}
}
