package manager_test

import (
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/cell"
)

// lull puts a tenant to sleep.
func (h *host) lull(t *testing.T, vc *v1alpha1.VirtualCluster) {
	t.Helper()
	for _, g := range h.guests {
		utilnet.CloseIdleConnectionsFor(g)
	}
	client := cell.NewClient(h.cells.socket(vc.Status.Cell))
	defer client.Close()
	if err := client.Sleep(t.Context(), tenant.ID(vc.UID), 5*time.Minute); err != nil {
		t.Fatal(err)
	}
}

// mirror makes a host object as a syncer would, but for what the marks are for.
func (h *host) mirror(t *testing.T, vc *v1alpha1.VirtualCluster, name, manager string) *corev1.ConfigMap {
	t.Helper()
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: vc.Status.Namespace, Name: name, Labels: map[string]string{tenant.LabelManagedBy: manager}}}
	if err := h.api.Create(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestWaker(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	a, b := h.create("a"), h.create("b")
	t.Run("a tenant that sleeps is woken by its host objects", func(t *testing.T) { h.wokenByHost(t, a, b) })
	t.Run("a hostname is one tenant's", func(t *testing.T) { h.hostnames(t, a, b) })
	t.Run("a cell that died has its tenants back", func(t *testing.T) { h.cellDeath(t, a, b) })
	h.leavesNothing(t, a)
}

// wokenByHost wants tenants that sleep to be woken by changes of the host objects
// that their syncers made, and by nothing else.
func (h *host) wokenByHost(t *testing.T, a, b *v1alpha1.VirtualCluster) {
	h.lull(t, a)
	vc := h.awaitPhase(a.Name, v1alpha1.PhaseAsleep)
	if c := meta.FindStatusCondition(vc.Status.Conditions, v1alpha1.ConditionReady); c == nil || c.Status != metav1.ConditionTrue || c.Reason != "Asleep" {
		t.Errorf("condition %+v", c)
	}
	h.lull(t, b)
	h.awaitPhase(b.Name, v1alpha1.PhaseAsleep)
	h.mirror(t, a, "of-the-manager", tenant.ManagedByManager)
	made := h.mirror(t, b, "made", tenant.ManagedBySyncer)
	h.awaitPhase(b.Name, v1alpha1.PhaseReady)
	if vc := h.awaitPhase(a.Name, v1alpha1.PhaseAsleep); vc.Status.Phase != v1alpha1.PhaseAsleep {
		t.Errorf("a is %s", vc.Status.Phase)
	}

	// What the syncer has seen does not wake; that it goes away does.
	h.cells.see(tenant.ID(b.UID), cell.Seen{ConfigMaps: cell.Mark{Version: made.ResourceVersion, Count: 1}})
	h.lull(t, b)
	h.awaitPhase(b.Name, v1alpha1.PhaseAsleep)
	own := h.mirror(t, a, "own", tenant.ManagedBySyncer)
	h.awaitPhase(a.Name, v1alpha1.PhaseReady)
	h.awaitPhase(b.Name, v1alpha1.PhaseAsleep)
	if err := h.api.Delete(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	h.awaitPhase(b.Name, v1alpha1.PhaseReady)

	// A change that comes before anybody knows that the tenant sleeps wakes it too.
	h.cells.see(tenant.ID(a.UID), cell.Seen{ConfigMaps: cell.Mark{Version: own.ResourceVersion, Count: 1}})
	own.Data = map[string]string{"changed": "before"}
	if err := h.api.Update(t.Context(), own); err != nil {
		t.Fatal(err)
	}
	h.lull(t, a)
	h.eventually("a is awake again", func() error {
		client := cell.NewClient(h.cells.socket(a.Status.Cell))
		defer client.Close()
		s, err := client.Snapshot(t.Context(), 0)
		for _, status := range s.Tenants {
			if status.ID == tenant.ID(a.UID) && status.Phase == cell.Ready {
				return err
			}
		}
		return errors.Join(err, errors.New("it sleeps"))
	})
	if err := h.api.Delete(t.Context(), own); err != nil {
		t.Fatal(err)
	}
}
