package syncer

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"sublet.dev/isolation/tenant"
)

// The informers see marked objects only: one that somebody took the marks from is
// found by the patrol, which changes nothing else of it.
func TestPatrolRestoresMarks(t *testing.T) {
	answered(t)
	ns := namespace(t)
	own := create(t, simplePod(ns, "web"))
	hostPod := waitHostPod(t, ns, "web", own.UID)
	onHost := w.host.CoreV1().Pods(hostPod.Namespace)
	strip := []byte(`{"metadata":{"labels":{"` + tenant.LabelManagedBy + `":null,"` + tenant.LabelNamespace + `":"x"}}}`)
	if _, err := onHost.Patch(t.Context(), hostPod.Name, types.MergePatchType, strip, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	stranger, err := w.host.CoreV1().ConfigMaps(acme.HostNamespace).Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "strangers"}, Data: map[string]string{"a": "b"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	before := w.syncer().PatrolStats()
	wait(t, "the marks", func() (bool, any) { // a write of the patrol may fail
		w.syncer().Patrol(t.Context())
		after := w.syncer().PatrolStats()
		return after.Remarked > before.Remarked && after.Rounds > before.Rounds, after
	})
	p, err := onHost.Get(t.Context(), hostPod.Name, metav1.GetOptions{})
	if err != nil || p.UID != hostPod.UID || p.Labels[tenant.LabelManagedBy] != tenant.ManagedBySyncer || p.Labels[tenant.LabelNamespace] != tenant.NamespaceValue(ns) {
		t.Errorf("%v, %+v", err, p.ObjectMeta)
	}
	setRunning(t, hostPod, "10.244.0.31")
	waitTenantPod(t, ns, "web", "running", func(p *corev1.Pod) bool { return p.UID == own.UID && p.Status.Phase == corev1.PodRunning })
	same, err := w.host.CoreV1().ConfigMaps(acme.HostNamespace).Get(t.Context(), "strangers", metav1.GetOptions{})
	if err != nil || same.ResourceVersion != stranger.ResourceVersion {
		t.Errorf("an object that is not ours was touched: %v", err)
	}
	wait(t, "comparison", func() (bool, any) {
		s := w.syncer().PatrolStats()
		return s.Compared > before.Compared, s
	})
	dropPod(t, own, p)
}

// A host object whose tenant object went while its marks were missing is an orphan: it
// is removed once it is known again.
func TestPatrolFindsOrphans(t *testing.T) {
	ns := namespace(t)
	services := w.tenant.CoreV1().Services(ns)
	if _, err := services.Create(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	onHost := w.host.CoreV1().Services(acme.HostNamespace)
	strip := []byte(`{"metadata":{"labels":{"` + tenant.LabelManagedBy + `":null}}}`)
	wait(t, "host service", func() (bool, any) {
		_, err := onHost.Patch(t.Context(), hostName(ns, "web"), types.MergePatchType, strip, metav1.PatchOptions{})
		return err == nil, err
	})
	if err := services.Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	wait(t, "end of the orphan", func() (bool, any) {
		w.syncer().Patrol(t.Context())
		_, err := onHost.Get(t.Context(), hostName(ns, "web"), metav1.GetOptions{})
		return apierrors.IsNotFound(err), err
	})
}
