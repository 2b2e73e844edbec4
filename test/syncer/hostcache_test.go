package syncer

import (
	"net/netip"
	"runtime"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/baseline"
	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/hostcache"
)

// neighbour is a tenant of the cell, or of another one, without a control plane.
func neighbour(t *testing.T, name string, cell string) tenant.Tenant {
	t.Helper()
	id := tenant.ID("7c0e8f0a-3f55-4a0e-9d0c-" + name)
	n := tenant.Tenant{ID: id, Name: "t-" + name, Sandbox: tenant.GVisor, HostNamespace: tenant.HostNamespace("t-"+name, id), ServiceCIDR: netip.MustParsePrefix("10.96.8.0/22")}
	give(t, n, cell)
	return n
}

// give gives a tenant to a cell.
func give(t *testing.T, n tenant.Tenant, cell string) {
	t.Helper()
	if err := apply(t.Context(), hostConfig, baseline.Tenant(n, cell, v1alpha1.PlanSpec{})); err != nil {
		t.Fatal(err)
	}
	wait(t, "the quotas are counted", func() (bool, any) { // until then they let nobody make anything
		list, err := w.host.CoreV1().ResourceQuotas(n.HostNamespace).List(t.Context(), metav1.ListOptions{})
		if err != nil || len(list.Items) == 0 {
			return false, err
		}
		return !slices.ContainsFunc(list.Items, func(q corev1.ResourceQuota) bool { return len(q.Status.Hard) == 0 }), list.Items
	})
}

// secrets are a cache's view of the Secrets of a tenant's host namespace, as the cell
// reads them.
func secrets(t *testing.T, c *hostcache.Cache, n tenant.Tenant) (v *hostcache.View, leave func()) {
	t.Helper()
	api, err := kubernetes.NewForConfig(w.cellConfig)
	if err != nil {
		t.Fatal(err)
	}
	made := tenant.LabelManagedBy + "=" + tenant.ManagedBySyncer
	space := c.Space(n.HostNamespace)
	v = space.View(hostcache.Kind{Resource: "secrets", Example: &corev1.Secret{}, Source: hostcache.Source(api.CoreV1().RESTClient(), "secrets", made)})
	if leave, err = space.Join(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(leave)
	return v, leave
}

// putSecret makes a Secret in a host namespace as a syncer does.
func putSecret(t *testing.T, n tenant.Tenant, name string) {
	t.Helper()
	owner := tenant.Owner{Tenant: n.ID, Name: tenant.Name{Namespace: "default", Name: name}, UID: "uid-" + name}
	labels, annotations := owner.Marks()
	_, err := w.host.CoreV1().Secrets(n.HostNamespace).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: string(n.ID.HostName(owner.Name)), Labels: labels, Annotations: annotations},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// has waits until a view has just the Secrets of these names.
func has(t *testing.T, v *hostcache.View, n tenant.Tenant, names ...string) {
	t.Helper()
	wait(t, "the secrets of "+n.Name, func() (bool, any) {
		there := v.GetStore().ListKeys()
		for _, name := range names {
			key := n.HostNamespace + "/" + string(n.ID.HostName(tenant.Name{Namespace: "default", Name: name}))
			if _, ok, _ := v.GetStore().GetByKey(key); !ok {
				return false, there
			}
		}
		return v.HasSynced() && len(there) == len(names), there
	})
}

// TestHostCacheIsApart: tenants of a cell share a cache, and none has what is another's.
// A namespace of another cell's cannot be read, which holds up nobody, until its tenant
// is given to this one.
func TestHostCacheIsApart(t *testing.T) {
	one, two, far := neighbour(t, "00000000000a", cell), neighbour(t, "00000000000b", cell), neighbour(t, "00000000000c", "cell-1")
	shared := hostcache.New()
	putSecret(t, one, "first")
	putSecret(t, far, "far")
	farView, _ := secrets(t, shared, far)
	oneView, _ := secrets(t, shared, one)
	twoView, leaveTwo := secrets(t, shared, two)
	has(t, oneView, one, "first")
	has(t, twoView, two)
	release, err := twoView.Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	putSecret(t, two, "second")
	release()
	has(t, twoView, two, "second")
	putSecret(t, one, "third")
	has(t, oneView, one, "first", "third")
	has(t, twoView, two, "second")
	if farView.HasSynced() || len(farView.GetStore().List()) != 0 {
		t.Errorf("a cell reads what is another's: %v", farView.GetStore().ListKeys())
	}

	leaveTwo()
	putSecret(t, one, "fourth")
	has(t, oneView, one, "first", "third", "fourth")
	again, _ := secrets(t, shared, two)
	has(t, again, two, "second")

	give(t, far, cell)
	has(t, farView, far, "far")
	if got := shared.Stats(); got != (hostcache.Stats{Namespaces: 3, Watches: 3, Objects: 5}) {
		t.Errorf("the cache holds %+v", got)
	}
}

// TestHostCacheLeavesNothing: namespaces that are joined and left, over and over, leave
// no goroutine.
func TestHostCacheLeavesNothing(t *testing.T) {
	n := neighbour(t, "00000000000d", cell)
	putSecret(t, n, "one")
	shared := hostcache.New()
	turn := func() (during int) {
		v, leave := secrets(t, shared, n)
		has(t, v, n, "one")
		during = runtime.NumGoroutine()
		leave()
		return during
	}
	turn() // what the client starts once: a connection
	wait(t, "a quiet moment", func() (bool, any) { _, _, quiet := w.syncer().Rest(); return quiet, nil })
	const spare = 8 // control planes are in the same process
	before, most := runtime.NumGoroutine(), 0
	for range 20 {
		most = max(most, turn())
	}
	if most <= before {
		t.Errorf("a watch does not show: %d goroutines before, %d at most", before, most)
	}
	wait(t, "the end of all goroutines", func() (bool, any) { n := runtime.NumGoroutine(); return n <= before+spare, n })
}

// TestParkedKind: a syncer watches the kinds of which the host namespace has objects,
// and no others. What somebody makes of another kind, with our marks and for nobody, the
// patrol finds, and it is removed.
func TestParkedKind(t *testing.T) {
	policies := w.host.NetworkingV1().NetworkPolicies(acme.HostNamespace)
	withoutPolicies(t)
	w.faults.set(false, 0) // a write of which nobody knows whether it was carried out has its kind watched for good
	t.Cleanup(func() { w.faults.set(false, everyday) })
	w.restart()
	quiet := func() {
		t.Helper()
		wait(t, "rest", func() (bool, any) { _, _, quiet := w.syncer().Rest(); return quiet, nil })
	}
	quiet()
	before := w.shared.Stats()
	owner := tenant.Owner{Tenant: acme.ID, Name: tenant.Name{Namespace: "default", Name: "nobody's"}, UID: "nobody"}
	labels, annotations := owner.Marks()
	policy := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: string(acme.ID.HostName(owner.Name)), Labels: labels, Annotations: annotations}}
	if _, err := policies.Create(t.Context(), policy, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	ns := namespace(t)
	own := create(t, simplePod(ns, "web")) // others are worked on
	hostPod := waitHostPod(t, ns, "web", own.UID)
	if _, err := policies.Get(t.Context(), policy.Name, metav1.GetOptions{}); err != nil {
		t.Errorf("the kind is watched: %v", err)
	}
	dropPod(t, own, hostPod)
	wait(t, "end of what is nobody's", func() (bool, any) {
		w.syncer().Patrol(t.Context())
		_, err := policies.Get(t.Context(), policy.Name, metav1.GetOptions{})
		return apierrors.IsNotFound(err), err
	})
	wait(t, "the end of its watch", func() (bool, any) {
		w.syncer().Patrol(t.Context())
		now := w.shared.Stats()
		return now.Watches <= before.Watches, now
	})
}

// withoutPolicies removes what other tests left of policies, on both sides.
func withoutPolicies(t *testing.T) {
	t.Helper()
	left, err := w.tenant.NetworkingV1().NetworkPolicies("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range left.Items {
		own := w.tenant.NetworkingV1().NetworkPolicies(p.Namespace)
		if _, err := own.Patch(t.Context(), p.Name, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := own.Delete(t.Context(), p.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
	}
	made := metav1.ListOptions{LabelSelector: tenant.LabelManagedBy + "=" + tenant.ManagedBySyncer}
	wait(t, "a host namespace without policies", func() (bool, any) {
		list, err := w.host.NetworkingV1().NetworkPolicies(acme.HostNamespace).List(t.Context(), made)
		return err == nil && len(list.Items) == 0, err
	})
}
