package cell_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"sublet.dev/tenant-apiserver/cell"
)

// The provider's metrics say whose each number is. And what is told to a tenant that
// runs (whose tokens it takes) does not restart it.
func TestMetricsOfTenants(t *testing.T) {
	t.Parallel()
	c, client, _ := start(t, quiet)
	a, b := tenantOf("uid-a", "a"), tenantOf("uid-b", "b")
	for _, who := range []cell.Tenant{a, b} {
		if s, err := client.Put(t.Context(), who); err != nil || s.Phase != cell.Ready {
			t.Fatalf("Put = %+v, %v", s, err)
		}
	}
	families, err := client.Metrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := families.Write(&text); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		for _, want := range []string{
			`apiserver_storage_size_bytes{storage_cluster_id="etcd-0",tenant="` + name + `"}`,
			`sublet_tenant_phase{phase="Ready",tenant="` + name + `"} 1`,
		} {
			if !strings.Contains(text.String(), want) {
				t.Errorf("no %s in\n%s", want, text.String())
			}
		}
	}
	revision := c.Snapshot(t.Context(), 0).Revision
	for _, document := range []string{
		`{"apiVersion":"apiserver.config.k8s.io/v1","kind":"AuthenticationConfiguration","jwt":[{
			"issuer":{"url":"https://192.0.2.7","audiences":["a"]},"claimMappings":{"username":{"claim":"sub","prefix":"x:"}}}]}`,
		`{"nonsense":true}`, "",
	} {
		a.Authentication = json.RawMessage(document)
		if s, err := client.Put(t.Context(), a); err != nil || s.Phase != cell.Ready {
			t.Errorf("Put with %q = %+v, %v", document, s, err)
		}
	}
	if now := c.Snapshot(t.Context(), 0).Revision; now != revision {
		t.Errorf("revision %d became %d", revision, now)
	}
}
