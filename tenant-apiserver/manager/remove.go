package manager

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/baseline"
	"sublet.dev/isolation/tenant"
)

const (
	// maxGrace bounds, in seconds, how long the pods of a tenant that is being
	// deleted may take to end, whatever grace they ask for.
	maxGrace int64 = 30
	// soonest and latest bound how soon a removal looks whether what it waits for has
	// ended; in between it is a part of the time that it has waited already. That the
	// host namespace is gone it is told.
	soonest, latest = 200 * time.Millisecond, 10 * time.Second
	waitedPart      = 8
)

// removeAgain returns how soon to look at a removal again.
func removeAgain(vc *v1alpha1.VirtualCluster) time.Duration {
	return min(max(time.Since(vc.DeletionTimestamp.Time)/waitedPart, soonest), latest)
}

// remove does the steps of a tenant that is to go, as far as they can be done now.
func (m *Manager) remove(ctx context.Context, vc *v1alpha1.VirtualCluster) (outcome, error) {
	o := outcome{phase: v1alpha1.PhaseDeleting, reason: reasonDeleting}
	if !controllerutil.ContainsFinalizer(vc, v1alpha1.Finalizer) {
		o.gone = true
		return o, nil
	}
	id := tenant.ID(vc.UID)
	m.config.Door.Remove(string(id))
	if err := m.stop(ctx, vc, id); err != nil {
		o.message = "The control plane has to stop first: " + err.Error()
		return o, err
	}
	t := tenant.Tenant{ID: id, Name: vc.Name, HostNamespace: tenant.HostNamespace(vc.Name, id), Sandbox: tenant.Sandbox(vc.Spec.Sandbox)}
	if waiting, err := m.removePods(ctx, t); err != nil || waiting != "" {
		o.message, o.again = waiting, removeAgain(vc)
		return o, err
	}
	if waiting, err := m.removeObjects(ctx, t, vc.Status.Cell); err != nil || waiting != "" {
		o.message, o.again = waiting, removeAgain(vc)
		return o, err
	}
	if err := m.removeEtcd(ctx, vc); err != nil {
		o.message = "The tenant's keys in the etcd have to go first; without spec.store they would be left: " + err.Error()
		return o, err
	}
	for _, path := range m.config.Files(id) {
		if err := os.RemoveAll(path); err != nil {
			return o, fmt.Errorf("remove the tenant's files: %w", err)
		}
	}
	if err := m.leave(ctx, vc); err != nil {
		return o, err
	}
	o.gone = true
	return o, nil
}

// leave gives the tenant's place back: its cell, when nobody else is in it, and
// with the VirtualCluster its addresses.
func (m *Manager) leave(ctx context.Context, vc *v1alpha1.VirtualCluster) error {
	m.placing.Lock()
	defer m.placing.Unlock()
	if err := m.retire(ctx, vc); err != nil {
		return err
	}
	controllerutil.RemoveFinalizer(vc, v1alpha1.Finalizer)
	if err := m.api.Update(ctx, vc); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("remove the finalizer: %w", err)
	}
	m.seats.leave(vc.UID)
	return nil
}

// stop ends the tenant's control plane and syncer. A cell that does not answer is
// waited for: only its answer says that nothing writes any more.
func (m *Manager) stop(ctx context.Context, vc *v1alpha1.VirtualCluster, id tenant.ID) error {
	if vc.Status.Cell == "" { // it was never placed
		return nil
	}
	c, err := m.cell(ctx, vc.Status.Cell)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, hostTimeout)
	defer cancel()
	return c.Delete(ctx, id)
}

// removePods deletes the tenant's host pods and says which it waits for.
func (m *Manager) removePods(ctx context.Context, t tenant.Tenant) (waiting string, err error) {
	if err := m.ownsNamespace(ctx, t); err != nil {
		return "", err
	}
	var pods corev1.PodList
	if err := m.api.List(ctx, &pods, client.InNamespace(t.HostNamespace)); err != nil {
		return "", fmt.Errorf("list the tenant's host pods: %w", err)
	}
	var names []string
	for i := range pods.Items {
		hostPod := &pods.Items[i]
		names = append(names, hostPod.Name)
		if err := m.removePod(ctx, hostPod); err != nil {
			return "", err
		}
	}
	if len(names) == 0 {
		return "", nil
	}
	slices.Sort(names)
	return fmt.Sprintf("pods are ending (%d): %s", len(names), shorten(strings.Join(names, ", "))), nil
}

func shorten(s string) string {
	const most = 300
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}

func (m *Manager) removePod(ctx context.Context, hostPod *corev1.Pod) error {
	grace := maxGrace
	if own := hostPod.Spec.TerminationGracePeriodSeconds; own != nil {
		grace = min(grace, *own)
	}
	// A pod that is ending already is only told once more when it may end sooner.
	if left := hostPod.DeletionGracePeriodSeconds; hostPod.DeletionTimestamp != nil && left != nil && *left <= grace {
		return nil
	}
	err := m.api.Delete(ctx, hostPod, &client.DeleteOptions{GracePeriodSeconds: &grace, Preconditions: &metav1.Preconditions{UID: &hostPod.UID}})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete host pod %s: %w", hostPod.Name, err)
	}
	return nil
}

// removeObjects deletes the host namespace, waits for it, and then deletes the
// objects outside of it.
func (m *Manager) removeObjects(ctx context.Context, t tenant.Tenant, cell string) (waiting string, err error) {
	var ns corev1.Namespace
	err = m.api.Get(ctx, client.ObjectKey{Name: t.HostNamespace}, &ns)
	switch {
	case err == nil:
		if ns.DeletionTimestamp == nil {
			err = m.api.Delete(ctx, &ns, client.Preconditions{UID: &ns.UID})
		}
		if client.IgnoreNotFound(err) != nil {
			return "", fmt.Errorf("delete host namespace %s: %w", t.HostNamespace, err)
		}
		return "The host namespace is ending." + namespaceTrouble(&ns), nil
	case !apierrors.IsNotFound(err):
		return "", fmt.Errorf("read host namespace %s: %w", t.HostNamespace, err)
	}
	objects := baseline.Tenant(t, cell, v1alpha1.PlanSpec{})
	if err := m.pruneRights(ctx, t, nil); err != nil {
		return "", err
	}
	slices.Reverse(objects)
	for _, o := range objects {
		if o.GetNamespace() != "" || o.GetName() == t.HostNamespace {
			continue // gone with the namespace
		}
		if err := m.api.Delete(ctx, o); client.IgnoreNotFound(err) != nil {
			return "", fmt.Errorf("delete host object %s: %w", o.GetName(), err)
		}
	}
	return "", nil
}

// namespaceTrouble repeats what the namespace controller says it waits for.
func namespaceTrouble(ns *corev1.Namespace) string {
	for _, c := range ns.Status.Conditions {
		if c.Status == corev1.ConditionTrue {
			return " " + shorten(c.Message)
		}
	}
	return ""
}
