package stories_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/test/machine"
)

// site is a Site in one of its versions; the fields of its spec follow.
const site = "apiVersion: sites.example.com/%s\nkind: Site\nmetadata: {name: %s}\nspec: {%s}\n"

// TestOperator runs an operator with webhooks inside a tenant, and does with its kind
// what a user of it would.
func TestOperator(t *testing.T) {
	t.Parallel()
	const name = "operated"
	tenant(t, name)
	machine.Image(t, "test/images/operator", "sublet.dev/operator:1")
	machine.Kubectl(t, name, "apply", "-f", written(t, operator(t)))
	machine.Kubectl(t, name, "rollout", "status", "deployment/operator", "--timeout=10m")

	t.Run("its rights are those of its role", func(t *testing.T) {
		as := "--as=system:serviceaccount:default:operator"
		if r := machine.TryKubectl(t, name, "get", "sites", as); r.Code != 0 {
			t.Errorf("it may not read sites: %v", r)
		}
		if r := machine.TryKubectl(t, name, "get", "secrets", as); r.Code == 0 || !strings.Contains(r.Stderr, "Forbidden") {
			t.Errorf("it may read secrets: %v", r)
		}
	})
	shop := written(t, fmt.Sprintf(site, "v1", "shop", "replicas: 2"))
	machine.Eventually(t, "a site", func() error { // that the webhooks are ready is known a moment later
		if r := machine.TryKubectl(t, name, "apply", "-f", shop); r.Code != 0 {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
	available(t, name, "shop", 2)
	t.Run("what it made", func(t *testing.T) { made(t, name) })
	t.Run("its webhooks", func(t *testing.T) { judged(t, name) })
	t.Run("both versions", func(t *testing.T) { converted(t, name) })
	t.Run("another leader", func(t *testing.T) { succeeded(t, name) })
	t.Run("the end", func(t *testing.T) { ended(t, name) })
}

// operator returns what the operator needs, with a certificate for its webhooks.
func operator(t *testing.T) string {
	t.Helper()
	authority, err := pki.LoadOrCreate(filepath.Join(t.TempDir(), "pki"), "operator")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := authority.IssueServing([]string{"operator.default.svc"}, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := os.ReadFile("testdata/operator.yaml")
	if err != nil {
		t.Fatal(err)
	}
	values := map[string][]byte{
		"CA":   authority.CAPEM(),
		"CERT": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}),
		"KEY":  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	}
	return os.Expand(string(manifest), func(v string) string { return base64.StdEncoding.EncodeToString(values[v]) })
}

// available waits until a Site says that so many of its pods serve.
func available(t *testing.T, tenant, name string, n int) {
	t.Helper()
	machine.Kubectl(t, tenant, "wait", "site/"+name, "--for=jsonpath={.status.available}="+fmt.Sprint(n), "--timeout=10m")
}

// made looks at the Deployment of the Site shop, at its note and at the metrics.
func made(t *testing.T, tenant string) {
	owner := get(t, tenant, "{.metadata.ownerReferences[0].kind}/{.metadata.ownerReferences[0].name} {.status.readyReplicas}", "deployment/shop")
	if owner != "Site/shop 2" {
		t.Errorf("the deployment's owner and ready pods are %q", owner)
	}
	if note, uid := get(t, tenant, `{.data.default\.shop}`, "configmap/register"), get(t, tenant, "{.metadata.uid}", "site/shop"); note != uid || uid == "" {
		t.Errorf("the register says %q of site %q", note, uid)
	}
	metrics := machine.Kubectl(t, tenant, "get", "--raw", "/api/v1/namespaces/default/pods/"+leader(t, tenant)+":8080/proxy/metrics")
	for _, want := range []string{`controller_runtime_reconcile_total{controller="site",result="success"} `, "leader_election_master_status{name=\"operator\"} 1", "rest_client_requests_total"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the leader's metrics lack %s", want)
		}
	}
}

// judged writes Sites that the webhooks change, refuse, and warn of.
func judged(t *testing.T, tenant string) {
	if said := get(t, tenant, "{.spec.greeting}", "site/shop"); said != "hello from the webhook" {
		t.Errorf("the mutating webhook left the greeting %q", said)
	}
	r := machine.TryKubectl(t, tenant, "apply", "-f", written(t, fmt.Sprintf(site, "v1", "large", "replicas: 6")))
	if r.Code == 0 || !strings.Contains(r.Stderr, `admission webhook "check.sites.example.com" denied the request: spec.replicas: 6 are more than 5`) {
		t.Errorf("a site that is too large: %v", r)
	}
	r = machine.TryKubectl(t, tenant, "patch", "site/shop", "--type=merge", "-p", `{"spec":{"replicas":6}}`)
	if r.Code == 0 || !strings.Contains(r.Stderr, "6 are more than 5") {
		t.Errorf("a site that becomes too large: %v", r)
	}
	r = machine.TryKubectl(t, tenant, "patch", "site/shop", "--type=merge", "-p", `{"spec":{"replicas":0}}`, "--dry-run=server")
	if r.Code != 0 || !strings.Contains(r.Stderr, "Warning: a site without replicas serves nobody") {
		t.Errorf("a site that the webhook warns of: %v", r)
	}
}

// converted reads and writes Sites in the version that is not stored.
func converted(t *testing.T, tenant string) {
	old := "sites.v1beta1.sites.example.com"
	if said := get(t, tenant, "{.apiVersion} {.spec.copies} {.spec.text}", old, "shop"); said != "sites.example.com/v1beta1 2 hello from the webhook" {
		t.Errorf("the site as v1beta1 is %q", said)
	}
	r := machine.TryKubectl(t, tenant, "apply", "-f", written(t, fmt.Sprintf(site, "v1beta1", "old", "copies: 1, text: good day")))
	if r.Code != 0 || !strings.Contains(r.Stderr, "Warning: sites.example.com/v1beta1 Site is deprecated") {
		t.Fatalf("a site as v1beta1: %v", r)
	}
	if said := get(t, tenant, "{.apiVersion} {.spec.replicas} {.spec.greeting}", "site/old"); said != "sites.example.com/v1 1 good day" {
		t.Errorf("the site as v1 is %q", said)
	}
	r = machine.TryKubectl(t, tenant, "patch", old, "old", "--type=merge", "-p", `{"spec":{"copies":6}}`)
	if r.Code == 0 || !strings.Contains(r.Stderr, "6 are more than 5") {
		t.Errorf("a site that is too large as v1beta1: %v", r)
	}
	available(t, tenant, "old", 1)
}

// leader returns the operator's pod that reconciles.
func leader(t *testing.T, tenant string) string {
	t.Helper()
	var pod string
	machine.Eventually(t, "the operator has a leader", func() error {
		holder := get(t, tenant, "{.spec.holderIdentity}", "lease/operator")
		pod, _, _ = strings.Cut(holder, "_")
		if pod == "" {
			return fmt.Errorf("the lease's holder is %q", holder)
		}
		return nil
	})
	return pod
}

// succeeded kills the leader: the other pod goes on.
func succeeded(t *testing.T, tenant string) {
	first := leader(t, tenant)
	machine.Kubectl(t, tenant, "delete", "pod", first, "--grace-period=0", "--force")
	machine.Eventually(t, "another pod leads", func() error {
		if now := leader(t, tenant); now == first {
			return fmt.Errorf("it is still %s", now)
		}
		return nil
	})
	machine.Kubectl(t, tenant, "patch", "site/shop", "--type=merge", "-p", `{"spec":{"replicas":1}}`)
	available(t, tenant, "shop", 1)
}

// ended deletes a Site: its note goes by the finalizer, what it owns by the API.
func ended(t *testing.T, tenant string) {
	machine.Kubectl(t, tenant, "delete", "site/shop", "--timeout=10m")
	if note := get(t, tenant, "{.data}", "configmap/register"); strings.Contains(note, "default.shop") || !strings.Contains(note, "default.old") {
		t.Errorf("the register is %s", note)
	}
	machine.Kubectl(t, tenant, "wait", "deployment/shop", "--for=delete", "--timeout=10m")
	machine.Kubectl(t, tenant, "wait", "pod", "-l", "site=shop", "--for=delete", "--timeout=10m")
	if left := get(t, tenant, "{.items[*].metadata.name}", "deployments"); left != "old operator" {
		t.Errorf("the deployments are %s", left)
	}
}
