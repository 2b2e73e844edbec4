package manager_test

import (
	"errors"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/cell"
)

// phases returns what the first cell says of its tenants, by name.
func (h *host) phases(t *testing.T) (map[string]cell.Phase, error) {
	c := cell.NewClient(h.cells.socket("cell-0"))
	defer c.Close()
	s, err := c.Snapshot(t.Context(), 0)
	all := map[string]cell.Phase{}
	for _, status := range s.Tenants {
		all[status.Name] = status.Phase
	}
	return all, err
}

// cellDeath wants a cell that died to have its tenants back: who ran, with what it
// has; who slept, asleep; and nobody who was deleted meanwhile. It deletes b.
func (h *host) cellDeath(t *testing.T, a, b *v1alpha1.VirtualCluster) {
	if _, err := h.tenantAPI(b).CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kept"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	h.cells.see(tenant.ID(a.UID), cell.Seen{})
	h.lull(t, a)
	h.awaitPhase(a.Name, v1alpha1.PhaseAsleep)
	h.cells.kill("cell-0")
	h.cells.run("cell-0")
	h.eventually("b has what it had", func() error {
		_, err := h.tenantAPI(b).CoreV1().ConfigMaps("default").Get(t.Context(), "kept", metav1.GetOptions{})
		return err
	})
	h.eventually("a sleeps on", func() error {
		if now, err := h.phases(t); err != nil || now["a"] != cell.Asleep || now["b"] != cell.Ready {
			return fmt.Errorf("%v, %w", now, err)
		}
		return nil
	})

	h.cells.kill("cell-0")
	if err := h.api.Delete(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	h.cells.run("cell-0")
	h.eventually("b is gone", func() error {
		if err := h.api.Get(t.Context(), client.ObjectKeyFromObject(b), &v1alpha1.VirtualCluster{}); !apierrors.IsNotFound(err) {
			return errors.Join(err, errors.New("it is there"))
		}
		return nil
	})
	h.eventually("the cell has a alone", func() error {
		if now, err := h.phases(t); err != nil || len(now) != 1 || now["a"] != cell.Asleep {
			return fmt.Errorf("%v, %w", now, err)
		}
		return nil
	})
	h.nothingLeft(t, b)
	if _, err := h.tenantAPI(a).CoreV1().Namespaces().Get(t.Context(), "default", metav1.GetOptions{}); err != nil {
		t.Errorf("%s does not wake: %v", tenant.ID(a.UID), err)
	}
}
