package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sublet.dev/test/machine"
	"sublet.dev/test/wire"
)

// apply applies a manifest in a tenant.
func apply(t *testing.T, tenant, manifest string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "manifest.yaml")
	if err := os.WriteFile(path, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	machine.Kubectl(t, tenant, "apply", "-f", path)
}

// from says who dials: a pod, or "deploy/web", in a namespace of a tenant.
type from struct{ tenant, namespace, pod string }

// soon waits until a dial works, or until it does not: policies take effect a moment
// after they are written.
func (f from) soon(t *testing.T, address string, open bool) {
	t.Helper()
	machine.Eventually(t, fmt.Sprintf("%s -> %s is open=%v", f.pod, address, open), func() error {
		r := machine.TryKubectl(t, f.tenant, "exec", "-n", f.namespace, f.pod, "--", "/app", "dial", address)
		if (r.Code == 0) != open || !open && !strings.Contains(r.Stderr, "app: dial") {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
}

const denyAll = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
`

const allowSome = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: counter}
spec:
  podSelector: {matchLabels: {app: counter}}
  ingress:
  - from:
    - podSelector: {matchLabels: {app: web}}
    - namespaceSelector: {matchLabels: {team: friends}}
      podSelector: {matchLabels: {app: guest}}
    ports: [{port: 9090}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Egress]
  egress:
  - to: [{podSelector: {matchLabels: {app: counter}}}]
`

const allowDNS = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: dns}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress:
  - to:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}
      podSelector: {matchLabels: {k8s-app: kube-dns}}
    ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
`

// outside is a policy about addresses; %s is what is left out.
const outside = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: outside}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Egress]
  egress:
  - to: [{ipBlock: {cidr: 0.0.0.0/0, except: [%s]}}]
`

// TestNetworkPolicies holds a tenant's pods to the tenant's own policies, on real
// containers in gVisor.
func TestNetworkPolicies(t *testing.T) {
	t.Parallel()
	tenants(t, "walled")
	machine.Kubectl(t, "walled", "create", "namespace", "other")
	machine.Kubectl(t, "walled", "run", "guest", "-n", "other", "--image=sublet.dev/quickstart:1", "--labels=app=guest", "--", "counter")
	machine.Kubectl(t, "walled", "wait", "-n", "other", "--for=condition=Ready", "pod/guest", "--timeout=5m")
	web, guest := from{"walled", "default", "deploy/web"}, from{"walled", "other", "guest"}
	counter := pods(t, "walled", "app=counter")[0].Status.PodIP + ":9090"
	world := fmt.Sprintf("%s:%d", wire.Internet, wire.Port)

	api := machine.Kubectl(t, "walled", "get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}") + ":443"
	for _, to := range []string{counter, "counter:9090", world, api} {
		web.soon(t, to, true)
	}
	guest.soon(t, counter, true)
	once(t, "before", world, "Succeeded")

	apply(t, "walled", denyAll)
	for _, to := range []string{counter, "counter:9090", world, api} {
		web.soon(t, to, false)
	}
	guest.soon(t, counter, false)
	guest.soon(t, world, true)           // another namespace
	once(t, "isolated", world, "Failed") // from its first packet on

	apply(t, "walled", allowSome)
	web.soon(t, counter, true)
	web.soon(t, "counter:9090", false) // it can't ask for the name
	guest.soon(t, counter, false)
	apply(t, "walled", allowDNS)
	web.soon(t, "counter:9090", true)

	machine.Kubectl(t, "walled", "label", "namespace", "other", "team=friends")
	guest.soon(t, counter, true)
	machine.Kubectl(t, "walled", "label", "namespace", "other", "team-")
	guest.soon(t, counter, false)

	apply(t, "walled", fmt.Sprintf(outside, "192.0.2.0/24"))
	web.soon(t, world, true)
	web.soon(t, fmt.Sprintf("%s:%d", wire.Metadata, wire.Port), false) // whatever a policy says
	web.soon(t, wire.Node+":10250", false)
	apply(t, "walled", fmt.Sprintf(outside, wire.Internet+"/32"))
	web.soon(t, world, false)

	// The kubelet has probed through all of this.
	machine.Kubectl(t, "walled", "rollout", "status", "deployment/web", "--timeout=5m")
	machine.Kubectl(t, "walled", "rollout", "restart", "deployment/web")
	machine.Kubectl(t, "walled", "rollout", "status", "deployment/web", "--timeout=5m")

	machine.Kubectl(t, "walled", "delete", "networkpolicy", "--all")
	for _, to := range []string{counter, "counter:9090", world} {
		web.soon(t, to, true)
	}
}

// once runs a pod that dials at once, and wants it to end so.
func once(t *testing.T, name, address, phase string) {
	t.Helper()
	machine.Kubectl(t, "walled", "run", name, "--image=sublet.dev/quickstart:1", "--restart=Never", "--", "dial", address)
	machine.Kubectl(t, "walled", "wait", "--for=jsonpath={.status.phase}="+phase, "pod/"+name, "--timeout=5m")
}
