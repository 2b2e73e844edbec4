package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sublet.dev/test/machine"
)

// routedPlan offers an ingress class, and hostnames that all its tenants may claim.
const routedPlan = `
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: public}
spec: {controller: example.com/ingress}
---
apiVersion: sublet.dev/v1alpha1
kind: Plan
metadata: {name: routed}
spec: {ingress: {classes: [public], hostnames: ["*.test", "*.{tenant}.example"]}}
`

const routedIngress = `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, annotations: {nginx.ingress.kubernetes.io/configuration-snippet: "return 200;"}}
spec:
  ingressClassName: public
  rules:
  - {host: "%s", http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}
  - {host: "www.%s.example", http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}
`

// served waits until these are the hostnames of a tenant's Ingresses on the host.
func served(t *testing.T, tenant string, hosts ...string) {
	t.Helper()
	namespace := strings.TrimSpace(machine.Host(t, "get", "vc", tenant, "-o", "jsonpath={.status.namespace}"))
	machine.Eventually(t, fmt.Sprint(tenant, " has ", hosts), func() error {
		got := machine.Host(t, "get", "ingress", "-n", namespace, "-o", "jsonpath={.items[*].spec.rules[*].host}")
		if got != strings.Join(hosts, " ") {
			return fmt.Errorf("the host serves %q", got)
		}
		return nil
	})
	if all := machine.Host(t, "get", "ingress", "-n", namespace, "-o", "jsonpath={.items[*].metadata.annotations}"); strings.Contains(all, "snippet") {
		t.Errorf("an annotation of the tenant's is on the host: %s", all)
	}
}

// Two tenants claim one hostname: the first has it, the second is told, and gets it once
// the first has given it up. What is each one's own is served all the time.
func TestHostnames(t *testing.T) {
	t.Parallel()
	machine.Running(t)
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	machine.Host(t, "apply", "-f", file("plan.yaml", routedPlan))
	for _, name := range []string{"early", "late"} {
		bare(t, name, "--plan", "routed")
		machine.Eventually(t, "the class in "+name, func() error {
			if r := machine.TryKubectl(t, name, "get", "ingressclass", "public"); r.Code != 0 {
				return fmt.Errorf("%v", r)
			}
			return nil
		})
	}
	apply := func(tenant, host string) {
		machine.Kubectl(t, tenant, "apply", "-f", file(tenant+".yaml", fmt.Sprintf(routedIngress, host, tenant)))
	}
	apply("early", "shop.test")
	served(t, "early", "shop.test", "www.early.example")
	for _, claim := range []string{"shop.test", "*.test"} {
		apply("late", claim)
		served(t, "late", "www.late.example")
		machine.Eventually(t, "late is told of "+claim, func() error {
			if events := machine.Kubectl(t, "late", "events", "--for", "ingress/web"); !strings.Contains(events, "the hostname "+claim+" is another's") {
				return fmt.Errorf("%s", events)
			}
			return nil
		})
	}
	served(t, "early", "shop.test", "www.early.example")
	machine.Kubectl(t, "early", "delete", "ingress", "web")
	served(t, "late", "*.test", "www.late.example")
	served(t, "early")
}
