package stories_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/test/machine"
)

// kinds are manifests of objects without pods, one of each kind; NAME stands for the
// object's name.
var kinds = sync.OnceValue(func() []string {
	data, err := os.ReadFile("testdata/kinds.yaml")
	if err != nil {
		panic(err)
	}
	return strings.Split(string(data), "\n---\n")
})

// named returns a manifest with the object's name.
func named(manifest, name string) string { return strings.ReplaceAll(manifest, "NAME", name) }

// most is how many objects there are; some kinds have one more than others.
const most = 500

// TestApply has kubectl make 500 objects and make them again, in both ways that it has:
// the second time, nothing changes.
func TestApply(t *testing.T) {
	byTarget(t)
	t.Parallel()
	const name = "applied"
	tenant(t, name)
	for _, way := range []string{"client", "server"} {
		t.Run("by the "+way, func(t *testing.T) {
			namespace := way + "-side"
			machine.Kubectl(t, name, "create", "namespace", namespace)
			files := written(t, manifests(most))
			flags := []string{"-n", namespace, "-f", files, "--server-side=" + fmt.Sprint(way == "server")}
			out := machine.Kubectl(t, name, append([]string{"apply"}, flags...)...)
			if done := results(out); done["created"]+done["serverside-applied"] != most {
				t.Fatalf("the first time: %v", done)
			}
			before := settled(t, name, namespace)
			out = machine.Kubectl(t, name, append([]string{"apply"}, flags...)...)
			if done := results(out); done["unchanged"]+done["serverside-applied"] != most {
				t.Errorf("the second time: %v", done)
			}
			if after := versions(t, name, namespace); !maps.Equal(before, after) {
				t.Errorf("the second time changed %v", changed(before, after))
			}
			// One of each kind: kubectl diff takes much longer for an object than apply.
			if r := machine.TryKubectl(t, name, "diff", "-n", namespace, "-f", written(t, manifests(len(kinds()))), flags[len(flags)-1]); r.Code != 0 || r.Stdout != "" {
				t.Errorf("kubectl diff: %v", r)
			}
			out = machine.Kubectl(t, name, "delete", "-n", namespace, "-f", files, "--timeout=10m")
			if n := strings.Count(out, " deleted"); n != most {
				t.Errorf("%d objects were deleted", n)
			}
			if left := versions(t, name, namespace); len(left) > 0 {
				t.Errorf("left are %v", slices.Collect(maps.Keys(left)))
			}
		})
	}
	t.Run("a change is one", func(t *testing.T) { different(t, name) })
}

// different is the control: what is not the same is neither unchanged nor without
// difference.
func different(t *testing.T, tenant string) {
	manifest := named(kinds()[1], "one")
	machine.Kubectl(t, tenant, "apply", "-f", written(t, manifest))
	other := written(t, strings.ReplaceAll(manifest, `more: "1"`, `more: "2"`))
	before := versions(t, tenant, "default")
	if r := machine.TryKubectl(t, tenant, "diff", "-f", other); r.Code != 1 || !strings.Contains(r.Stdout, "+  more: \"2\"") {
		t.Errorf("kubectl diff: %v", r)
	}
	if out := machine.Kubectl(t, tenant, "apply", "-f", other); !strings.Contains(out, "configmap/one configured") {
		t.Errorf("kubectl apply: %s", out)
	}
	if after := versions(t, tenant, "default"); len(changed(before, after)) != 1 {
		t.Errorf("changed are %v", changed(before, after))
	}
}

// manifests returns the first n objects, as one file.
func manifests(n int) string {
	var b strings.Builder
	all := kinds()
	for i := range n {
		fmt.Fprintf(&b, "%s\n---\n", named(all[i%len(all)], fmt.Sprintf("x-%d", i/len(all))))
	}
	return b.String()
}

// results counts what kubectl says of each object.
func results(out string) map[string]int {
	done := map[string]int{}
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		done[fields[len(fields)-1]]++
	}
	return done
}

// versions returns the resource versions of the objects that the test made in a
// namespace.
func versions(t *testing.T, tenant, namespace string) map[string]string {
	t.Helper()
	const all = "serviceaccounts,configmaps,secrets,services,podtemplates,limitranges,deployments,statefulsets,daemonsets,jobs,cronjobs,networkpolicies,ingresses,resourcequotas,roles,rolebindings,leases"
	var list struct {
		Items []metav1.PartialObjectMetadata
	}
	if err := json.Unmarshal([]byte(machine.Kubectl(t, tenant, "get", all, "-n", namespace, "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, o := range list.Items {
		if strings.HasPrefix(o.Name, "x-") || o.Name == "one" {
			out[o.Kind+" "+o.Name] = o.ResourceVersion
		}
	}
	return out
}

// settled waits until controllers have written what they have to say of the objects:
// they have observed them, and for as long as looking takes some times nothing changes.
// It returns their versions.
func settled(t *testing.T, tenant, namespace string) map[string]string {
	t.Helper()
	const looks = 8
	var last map[string]string
	same := 0
	machine.Eventually(t, "the objects settle", func() error {
		for line := range strings.Lines(machine.Kubectl(t, tenant, "get", "deployments,statefulsets,daemonsets", "-n", namespace, "-o",
			`jsonpath={range .items[*]}{.kind} {.metadata.name} {.metadata.generation} {.status.observedGeneration}{"\n"}{end}`)) {
			if f := strings.Fields(line); len(f) != 4 || f[2] != f[3] {
				return fmt.Errorf("not observed yet: %s", line)
			}
		}
		now := versions(t, tenant, namespace)
		before := last
		last = now
		if same++; len(now) != most || !maps.Equal(before, now) {
			same = 0
		}
		if same < looks {
			return fmt.Errorf("there are %d, %d of them changed", len(now), len(changed(before, now)))
		}
		return nil
	})
	return last
}

// changed returns the objects whose versions differ.
func changed(before, after map[string]string) []string {
	var out []string
	for name, version := range after {
		if before[name] != version {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}
