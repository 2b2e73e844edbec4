package syncer

import (
	"errors"
	"slices"
	"testing"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer"
	"sublet.dev/syncer/translate"
)

// A pod can be explained from both sides, with both objects, the fate of its fields
// and what its syncer does about it.
func TestExplain(t *testing.T) {
	ns := namespace(t)
	own := create(t, simplePod(ns, "web"))
	hostPod := waitHostPod(t, ns, "web", own.UID)
	e, err := w.syncer().ExplainHostPod(t.Context(), hostPod.Name)
	if err != nil {
		t.Fatal(err)
	}
	if e.Namespace != ns || e.Name != "web" || e.HostName != hostPod.Name || e.HostNamespace != acme.HostNamespace {
		t.Errorf("%s/%s, %s/%s", e.Namespace, e.Name, e.HostNamespace, e.HostName)
	}
	if e.TenantPod == nil || e.HostPod == nil || e.TenantPod.UID != own.UID || e.HostPod.UID != hostPod.UID || e.Held != "" || len(e.Passes) != 3 {
		t.Errorf("%+v", e)
	}
	if !slices.Contains(e.Fields, translate.Fate{Field: "spec.runtimeClassName", Fate: "forced"}) {
		t.Errorf("fields %+v", e.Fields)
	}
	for _, missing := range []string{"none", hostPod.Name + "x"} {
		if _, err := w.syncer().ExplainHostPod(t.Context(), missing); !errors.Is(err, syncer.ErrNotFound) {
			t.Errorf("%s: %v", missing, err)
		}
		if _, err := w.syncer().ExplainPod(t.Context(), tenant.Name{Namespace: ns, Name: missing}); !errors.Is(err, syncer.ErrNotFound) {
			t.Errorf("%s: %v", missing, err)
		}
	}
	refused := simplePod(ns, "bad")
	refused.Spec.HostNetwork = true
	create(t, refused)
	wait(t, "reason", func() (bool, any) {
		e, err = w.syncer().ExplainPod(t.Context(), tenant.Name{Namespace: ns, Name: "bad"})
		return err == nil && e.Held != "", err
	})
	at := slices.IndexFunc(e.Fields, func(f translate.Fate) bool { return f.Field == "spec.hostNetwork" })
	if at < 0 || e.Fields[at].Fate != "refused" || e.Fields[at].Rule != "host-namespaces" || e.HostPod != nil {
		t.Errorf("%+v", e)
	}
	dropPod(t, own, hostPod)
}
