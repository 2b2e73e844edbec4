package server

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/tenant-apiserver/plan"
)

// own is a tenant of a test alone.
func own(t *testing.T, name string, i int, terms plan.Terms) *member {
	t.Helper()
	c := tenantConfig(t.TempDir(), name, i)
	c.GoldenDir, c.Terms = w.golden, terms
	m, err := startMember(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.stop(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// recorded is a client configuration and the serial number of its certificate.
func (m *member) recorded(t *testing.T, user string) (*rest.Config, string) {
	t.Helper()
	request, key, err := pki.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	leaf, cert, err := m.ca.SignClient(request, user, []string{"system:masters"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	data, err := pki.KubeconfigOptions{Server: "https://" + m.addr, User: user}.Write(m.ca.CAPEM(), cert, key)
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(data)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	return config, pki.Serial(leaf.SerialNumber)
}

// Watches beyond the plan's number are refused with 429; when one ends there is
// room for another, and short requests do not count among them.
func TestLimitOfStreams(t *testing.T) {
	m := own(t, "streams", 4, plan.Terms{Plan: "tiny", Limits: plan.Limits{Streams: 2}})
	config := m.admin(t)
	start := func() (*http.Response, error) { return get(t, config, "/api/v1/configmaps?watch=true") }
	var open []*http.Response
	for range 2 {
		r, err := start()
		if err != nil || r.StatusCode != http.StatusOK {
			t.Fatalf("beneath the limit: %v, %v", r, err)
		}
		open = append(open, r)
	}
	r, err := start()
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(r.Body)
	_ = r.Body.Close()
	if r.StatusCode != http.StatusTooManyRequests || r.Header.Get("Retry-After") == "" || !strings.Contains(string(body), "the plan tiny allows 2 watches and streams") {
		t.Errorf("above the limit: %s %s", r.Status, body)
	}
	if r, err := get(t, config, "/api/v1/configmaps"); err != nil || r.StatusCode != http.StatusOK {
		t.Errorf("a short request: %v, %v", r, err)
	}
	_ = open[0].Body.Close()
	await(t, "room for another watch", func(context.Context) (bool, error) {
		r, err := start()
		return err == nil && r.StatusCode == http.StatusOK, err
	})
	m.server.SetTerms(plan.Terms{})
	if r, err := start(); err != nil || r.StatusCode != http.StatusOK {
		t.Errorf("another plan: %v, %v", r, err)
	}
}

// Short requests beyond the plan's number are refused with 429.
func TestLimitOfRequests(t *testing.T) {
	block := make(chan struct{})
	began := make(chan struct{}, 2)
	g := newGuard(func() *plan.Terms { return &plan.Terms{Plan: "tiny", Limits: plan.Limits{Concurrent: 2, Streams: 2}} }, nil, 0)
	h := g.wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began <- struct{}{}
		<-block
	}))
	done := make(chan int, 2)
	for range 2 {
		go func() { done <- serveTo(h, "/api/v1/namespaces") }()
		<-began
	}
	if code := serveTo(h, "/api/v1/namespaces"); code != http.StatusTooManyRequests {
		t.Errorf("above the limit: %d", code)
	}
	close(block)
	for range 2 {
		if code := <-done; code != http.StatusOK {
			t.Errorf("beneath the limit: %d", code)
		}
	}
	if code := serveTo(h, "/api/v1/namespaces"); code != http.StatusOK {
		t.Errorf("after them: %d", code)
	}
}
