package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"sublet.dev/tenant-apiserver/measure"
)

// scrape returns what /metrics answers.
func scrape(t *testing.T, c *rest.Config) (int, string) {
	t.Helper()
	r, err := get(t, c, MetricsURL)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(body)
}

// A tenant reads its own numbers and no others; two of them share this process with a
// host.
func TestMetricsAreTheTenantsOwn(t *testing.T) {
	things(t, w.a, "of-a.example.org")
	things(t, w.b, "of-b.example.org")
	for _, c := range []struct {
		m           *member
		own, others string
	}{{w.a, "of-a.example.org", "of-b.example.org"}, {w.b, "of-b.example.org", "of-a.example.org"}} {
		code, text := scrape(t, c.m.admin(t))
		if code != http.StatusOK || !strings.Contains(text, `group="`+c.own+`",resource="things"`) || !strings.Contains(text, "apiserver_storage_size_bytes") {
			t.Errorf("%s: %d:\n%.2000s", c.m.name, code, text)
		}
		for _, foreign := range []string{c.others, "process_", "go_", "workqueue", "tenant="} {
			if strings.Contains(text, foreign) {
				t.Errorf("%s: its metrics have %q", c.m.name, foreign)
			}
		}
		if _, err := measure.Read(strings.NewReader(text)); err != nil {
			t.Errorf("%s: %v", c.m.name, err)
		}
	}
	if code, _ := scrape(t, w.a.as(t, "joe")); code != http.StatusForbidden {
		t.Errorf("somebody gets %d", code)
	}
	if code, _ := scrape(t, w.a.as(t, "prometheus", "system:monitoring")); code != http.StatusOK {
		t.Errorf("the group that may read metrics gets %d", code)
	}
	families, err := w.a.server.Metrics()
	if err != nil || len(families) == 0 {
		t.Errorf("for the provider: %d, %v", len(families), err)
	}
}

// The host's API has the numbers of all tenants, for whom the provider lets read them.
func TestMetricsOfAllTenants(t *testing.T) {
	for user, want := range map[string]int{"admin": http.StatusOK, "joe": http.StatusForbidden} {
		config := w.host.as(t, user, map[string][]string{"admin": {"system:masters"}}[user]...)
		r, err := get(t, config, TenantMetricsURL)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		_ = r.Body.Close() // it was read
		if err != nil || r.StatusCode != want || (string(body) == "all tenants") != (want == http.StatusOK) {
			t.Errorf("%s: %d %s, %v", user, r.StatusCode, body, err)
		}
	}
	// Its own are upstream's, of the process.
	if code, text := scrape(t, w.host.admin(t)); code != http.StatusOK || !strings.Contains(text, "process_") {
		t.Errorf("the host's own: %d", code)
	}
}

// things gives a tenant custom resources of a group.
func things(t *testing.T, m *member, group string) (remove func()) {
	t.Helper()
	body := fmt.Sprintf(`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"things.%[1]s"},"spec":{
			"group":%[1]q,"scope":"Namespaced","names":{"plural":"things","singular":"thing","kind":"Thing","listKind":"ThingList"},
			"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","properties":{"spec":{"type":"object","properties":{"size":{"type":"integer","description":"how large a thing is"}}}}}}}]}}`, group)
	r := client(t, m.admin(t)).Discovery().RESTClient()
	const path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
	if err := r.Post().AbsPath(path).SetHeader("Content-Type", "application/json").Body([]byte(body)).Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	remove = func() { _ = r.Delete().AbsPath(path, "things."+group).Do(context.WithoutCancel(t.Context())) }
	t.Cleanup(remove)
	await(t, "the custom resources", func(ctx context.Context) (bool, error) {
		return r.Get().AbsPath("/apis/"+group+"/v1/things").Do(ctx).Error() == nil, nil
	})
	return remove
}
