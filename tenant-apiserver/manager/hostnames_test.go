package manager

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

// asking is a ConfigMap that asks, seconds after the world began.
func asking(namespace, uid string, seconds int, names ...string) hostnameAsk {
	return hostnameAsk{names: names, object: &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespace, UID: types.UID(uid), CreationTimestamp: metav1.NewTime(time.Unix(int64(seconds), 0))}}}
}

func worldOf(asks ...hostnameAsk) hostnameWorld {
	all := hostnameTenant{"t", []string{"*"}}
	return hostnameWorld{tenants: map[string]hostnameTenant{"a": all, "b": all, "c": {"c", []string{"*.{tenant}.example"}}},
		had: map[string][]string{}, serves: map[string][]string{}, asks: asks}
}

func TestDecide(t *testing.T) {
	type names = map[string][]string
	for what, c := range map[string]struct {
		world func() hostnameWorld
		want  names
		freed bool
	}{
		"the oldest is first": {func() hostnameWorld {
			return worldOf(asking("b", "1", 2, "x.example"), asking("a", "2", 1, "x.example"))
		}, names{"a": {"x.example"}}, false},
		"at one time, the lower UID": {func() hostnameWorld {
			return worldOf(asking("b", "2", 1, "x.example"), asking("a", "1", 1, "x.example"))
		}, names{"a": {"x.example"}}, false},
		"whoever has it keeps it": {func() hostnameWorld {
			w := worldOf(asking("a", "1", 1, "x.example"), asking("b", "2", 2, "x.example"))
			w.had["b"] = []string{"x.example"}
			return w
		}, names{"b": {"x.example"}}, false},
		"a wildcard over another's": {func() hostnameWorld {
			return worldOf(asking("a", "1", 1, "x.y.example"), asking("b", "2", 2, "*.example", "z.test"))
		}, names{"a": {"x.y.example"}, "b": {"z.test"}}, false},
		"a name below another's wildcard": {func() hostnameWorld {
			return worldOf(asking("a", "1", 1, "*.example"), asking("b", "2", 2, "x.y.example"))
		}, names{"a": {"*.example"}}, false},
		"both are one's": {func() hostnameWorld {
			return worldOf(asking("a", "1", 1, "*.example"), asking("a", "2", 2, "x.example", "*.example"))
		}, names{"a": {"*.example", "x.example"}}, false},
		"what is served still": {func() hostnameWorld {
			w := worldOf(asking("b", "2", 2, "x.example"))
			w.serves["a"] = []string{"x.example"}
			return w
		}, names{}, false},
		"what the provider serves": {func() hostnameWorld {
			w := worldOf(asking("b", "2", 2, "*.example"))
			w.serves["dashboard"] = []string{"dashboard.example"}
			return w
		}, names{}, false},
		"what was given up is free later": {func() hostnameWorld {
			w := worldOf(asking("b", "2", 2, "x.example"))
			w.had["a"] = []string{"x.example"}
			return w
		}, names{}, true},
		"the plan's own": {func() hostnameWorld {
			return worldOf(asking("c", "1", 1, "www.c.example", "www.a.example", "c.example"))
		}, names{"c": {"www.c.example"}}, false},
		"a namespace that is no tenant's": {func() hostnameWorld {
			return worldOf(asking("kube-system", "1", 1, "x.example"), asking("a", "2", 2, "x.example"))
		}, names{"a": {"x.example"}}, false},
	} {
		has, freed := c.world().decide()
		if !maps.EqualFunc(has, c.want, slices.Equal) || freed != c.freed {
			t.Errorf("%s: %v, freed=%v", what, has, freed)
		}
	}
}

// Whatever is asked for, given up and served, in whatever order: no two tenants have
// names that overlap, and nobody loses a name that it goes on asking for.
func TestNoTwoHaveOne(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pool := []string{"a.example", "b.a.example", "c.b.a.example", "*.a.example", "*.b.a.example", "*.example", "x.test", "*.test"}
	w, lost := worldOf(), 0
	delete(w.tenants, "c")
	asked := map[string]map[string]bool{"a": {}, "b": {}}
	for step := range 5000 {
		namespace, name := []string{"a", "b"}[r.IntN(2)], pool[r.IntN(len(pool))]
		asked[namespace][name] = r.IntN(2) == 0
		w.asks = nil
		for n, names := range asked {
			for name, wants := range names {
				if wants {
					w.asks = append(w.asks, asking(n, name, r.IntN(3), name))
				}
			}
		}
		before := w.had
		w.had, _ = w.decide()
		for n, names := range before {
			for _, name := range names {
				if asked[n][name] && !slices.Contains(w.had[n], name) {
					t.Fatalf("step %d: %s lost %s", step, n, name)
				}
			}
		}
		for _, a := range w.had["a"] {
			for _, b := range w.had["b"] {
				if policy.HostnamesOverlap(a, b) {
					t.Fatalf("step %d: %s and %s", step, a, b)
				}
			}
		}
		lost += len(w.asks) - len(w.had["a"]) - len(w.had["b"])
	}
	if lost == 0 {
		t.Error("nobody ever waited: nothing was tested")
	}
}

// One that asks for everything gets no more than there is for a tenant, and keeps nobody
// else waiting for the rest.
func TestHostnamesAreBounded(t *testing.T) {
	w := worldOf()
	for i := range 20 {
		m := asking("a", fmt.Sprintf("%02d", i), 1).object
		m.Data = map[string]string{tenant.HostnamesKey: ""}
		for j := range 2 * policy.MaxHostnamesOfOne {
			m.Data[tenant.HostnamesKey] += fmt.Sprintf("x%d-%d.example\n", i, j)
		}
		w.asks = append(w.asks, newHostnameAsk(m))
	}
	last := fmt.Sprintf("x0-%d.example", 2*policy.MaxHostnamesOfOne-1) // beyond what one object may ask for
	w.asks = append(w.asks, asking("b", "99", 2, "own.example", last, "x0-0.example"))
	has, _ := w.decide()
	if len(has["a"]) != policy.MaxHostnames || !slices.Equal(has["b"], []string{"own.example", last}) {
		t.Errorf("one has %d, the other %v", len(has["a"]), has["b"])
	}
}

// Who has a name that overlaps is found as comparing with each would.
func TestOwnersAreFound(t *testing.T) {
	names := []string{"a.example", "b.a.example", "c.b.a.example", "*.a.example", "*.b.a.example", "*.example", "x.test", "*.test", "ab.example", "*.ab.example", "example"}
	for _, have := range names {
		w := worldOf()
		w.had["a"] = []string{have}
		for _, want := range names {
			if got := w.owners(nil).another("b", want); got != policy.HostnamesOverlap(have, want) || w.owners(nil).another("a", want) {
				t.Errorf("%s of another, %s: overlap=%v", have, want, got)
			}
		}
	}
}
