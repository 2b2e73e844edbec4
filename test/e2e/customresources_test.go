package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"

	"sublet.dev/syncer"
	"sublet.dev/test/machine"
)

// provided are a provider's kinds: databases that tenants order, in flavors that the
// provider has, and the plan that offers both.
const provided = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: databases.provider.example.org}
spec:
  group: provider.example.org
  names: {plural: databases, singular: database, kind: Database, listKind: DatabaseList}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {flavor: {type: string}, owner: {type: string}, hostPath: {type: string}}}
          status: {type: object, properties: {address: {type: string}, node: {type: string}}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: flavors.provider.example.org}
spec:
  group: provider.example.org
  names: {plural: flavors, singular: flavor, kind: Flavor, listKind: FlavorList}
  scope: Cluster
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {memory: {type: string}, price: {type: string}}}
---
apiVersion: sublet.dev/v1alpha1
kind: Plan
metadata: {name: databases}
spec:
  customResources:
  - {group: provider.example.org, version: v1, kind: Database, resource: databases, direction: ToHost, max: 3,
     fields: [{path: spec.flavor, values: [small, large]}, {path: spec.owner, value: tenant}], status: [status.address]}
  - {group: provider.example.org, version: v1, kind: Flavor, resource: flavors, direction: FromHost,
     fields: [{path: spec.memory}], select: {matchLabels: {offered: "yes"}}}
`

const flavor = `
apiVersion: provider.example.org/v1
kind: Flavor
metadata: {name: small, labels: {offered: "yes"}}
spec: {memory: 1Gi, price: secret}
`

const ordered = `
apiVersion: provider.example.org/v1
kind: Database
metadata: {name: orders}
spec: {owner: somebody}
`

const databases = "databases.provider.example.org"

// write puts objects into a file.
func write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name+".yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// provide runs the provider's controller until the test ends: a database has an
// address once it is seen.
func provide(t *testing.T) {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(machine.DataDir(), "admin.kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	api, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	all := api.Resource(schema.GroupVersionResource{Group: "provider.example.org", Version: "v1", Resource: "databases"})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		wait.UntilWithContext(ctx, func(ctx context.Context) {
			list, err := all.List(ctx, metav1.ListOptions{})
			if err != nil {
				return // it looks again
			}
			for _, d := range list.Items {
				status := fmt.Sprintf(`{"status": {"address": "%s.db.example.org", "node": "worker-7"}}`, d.GetName())
				_, _ = all.Namespace(d.GetNamespace()).Patch(ctx, d.GetName(), types.MergePatchType, []byte(status), metav1.PatchOptions{}, "status") // the same
			}
		}, 250*time.Millisecond)
	}()
	t.Cleanup(func() { cancel(); <-ended })
}

// counted waits until the host's quotas count a kind whose definition is new: one that
// is made before waits minutes for it. A quota is looked at when it is changed.
func counted(t *testing.T, kind string) {
	t.Helper()
	t.Cleanup(func() { machine.Host(t, "delete", "resourcequota", "probe", "--ignore-not-found") })
	tries := 0
	machine.Eventually(t, "the host counts "+kind, func() error {
		tries++
		machine.Host(t, "apply", "-f", write(t, "probe", fmt.Sprintf("apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: probe}\nspec: {hard: {count/%s: %d}}\n", kind, tries)))
		if known := machine.Host(t, "get", "resourcequota", "probe", "-o", "jsonpath={.status.used}"); !strings.Contains(known, kind) {
			return fmt.Errorf("used: %s", known)
		}
		return nil
	})
}

// TestCustomResources: a provider's kind is ordered by a tenant, carried out by the
// provider's controller on the host, and explained from both sides; what the rule does
// not bring is refused when it is written. What the provider changes while the tenant
// sleeps is there when it wakes.
func TestCustomResources(t *testing.T) {
	t.Parallel()
	machine.Running(t)
	machine.Host(t, "apply", "-f", write(t, "provided", provided))
	machine.Host(t, "wait", "--for=condition=Established", "crd/databases.provider.example.org", "crd/flavors.provider.example.org", "--timeout=5m")
	machine.Host(t, "apply", "-f", write(t, "flavor", flavor))
	counted(t, databases)
	provide(t)
	bare(t, "ordering", "--plan", "databases")

	order := write(t, "database", ordered)
	machine.Eventually(t, "the kind is there", func() error {
		if r := machine.TryKubectl(t, "ordering", "apply", "-f", order); r.Code != 0 {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
	var namespace, name string
	machine.Eventually(t, "the provider's answer", func() error {
		address := strings.TrimSpace(machine.Kubectl(t, "ordering", "get", databases, "orders", "-o", "jsonpath={.status}"))
		namespace, name = onHost(t, "ordering", databases, "orders")
		if name == "" || address == "" {
			return fmt.Errorf("status %q, on the host %q", address, name)
		}
		if want := `{"address":"orders.db.example.org"}`; address != want {
			return fmt.Errorf("status %s, want %s", address, want)
		}
		return nil
	})
	if spec := strings.TrimSpace(machine.Host(t, "get", databases, "-n", namespace, name, "-o", "jsonpath={.spec}")); spec != `{"flavor":"small","owner":"tenant"}` {
		t.Errorf("on the host: %s", spec)
	}

	t.Run("refused when it is written", refusedAtOnce)
	t.Run("explained", func(t *testing.T) {
		for _, args := range [][]string{{"ordering", databases + "/default/orders"}, {"--from-host", databases + "/" + namespace + "/" + name}} {
			text := machine.Sublet(t, append([]string{"explain"}, args...)...)
			for _, want := range []string{"default/orders", namespace + "/" + name, "this very object", databases + "/status", "spec.owner", "forced"} {
				if !strings.Contains(text, want) {
					t.Errorf("explain %q does not say %q:\n%s", args, want, text)
				}
			}
		}
	})
	t.Run("asleep", changedAsleep)
}

// onHost asks explain for the host's name of an object in the namespace default.
func onHost(t *testing.T, tenant, kind, object string) (namespace, name string) {
	t.Helper()
	r := machine.Try(t, "explain", tenant, kind+"/default/"+object, "-o", "json")
	var e syncer.Explanation
	if r.Code != 0 || json.Unmarshal([]byte(r.Stdout), &e) != nil || e.HostObject == nil {
		return "", ""
	}
	return e.HostNamespace, e.HostName
}

// refusedAtOnce: the tenant's API says what would not get to the host, by the rule.
func refusedAtOnce(t *testing.T) {
	bad := write(t, "bad", strings.NewReplacer("orders", "bad", "owner: somebody", "hostPath: /etc").Replace(ordered))
	if r := machine.TryKubectl(t, "ordering", "apply", "-f", bad); r.Code == 0 || !strings.Contains(r.Stderr, "spec.hostPath") || !strings.Contains(r.Stderr, "[custom-resource-fields]") {
		t.Errorf("a field that the rule does not bring: %v", r)
	}
	if r := machine.TryKubectl(t, "ordering", "patch", databases, "orders", "--type=merge", "-p", `{"spec": {"flavor": "huge"}}`); r.Code == 0 || !strings.Contains(r.Stderr, "small or large") {
		t.Errorf("a value that the rule does not have: %v", r)
	}
	machine.Kubectl(t, "ordering", "label", databases, "orders", "app=shop")
	claim := write(t, "claim", `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: steal}
spec: {volumeName: pvc-of-another, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
`)
	if r := machine.TryKubectl(t, "ordering", "apply", "-f", claim); r.Code != 0 || !strings.Contains(r.Stderr, "Warning:") || !strings.Contains(r.Stderr, "[claim-volume]") {
		t.Errorf("a claim that gets no volume: %v", r)
	}
}

// changedAsleep: what the provider shows is as it is now when a tenant wakes, and does
// not wake it.
func changedAsleep(t *testing.T) {
	memory := func() string {
		return strings.TrimSpace(machine.Kubectl(t, "ordering", "get", "flavors.provider.example.org", "small", "-o", "jsonpath={.spec}"))
	}
	if got := memory(); got != `{"memory":"1Gi"}` {
		t.Errorf("the tenant sees %s", got)
	}
	machine.Kubectl(t, "ordering", "delete", databases, "orders", "--timeout=5m") // with it, it does not sleep
	lull(t, "ordering")
	machine.Host(t, "patch", "flavors.provider.example.org", "small", "--type=merge", "-p", `{"spec": {"memory": "2Gi"}}`)
	if now := phase(t, "ordering"); now != "Asleep" {
		t.Errorf("the tenant is %s", now)
	}
	machine.Eventually(t, "what the provider changed", func() error {
		if got := memory(); got != `{"memory":"2Gi"}` {
			return fmt.Errorf("the tenant sees %s", got)
		}
		return nil
	})
}
