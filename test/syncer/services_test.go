package syncer

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// nodePortService is one whose port is chosen by who calls: of the first 86 of the range,
// which are never given to Services without a choice (KEP-3668). 0: none is chosen.
func nodePortService(ns, name string, typ corev1.ServiceType, port int32) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: corev1.ServiceSpec{Type: typ, Selector: map[string]string{"a": "b"},
		Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080), NodePort: port}}}}
}

// offer sets how many node ports the tenant's plan has.
func offer(t *testing.T, n string) {
	t.Helper()
	allow(t, corev1.ResourceServicesNodePorts, n)
}

// allow sets how much of something the tenant's plan has, and waits until the host
// goes by it.
func allow(t *testing.T, what corev1.ResourceName, n string) {
	t.Helper()
	quotas := w.host.CoreV1().ResourceQuotas(acme.HostNamespace)
	wait(t, "a quota", func() (bool, any) {
		q, err := quotas.Get(t.Context(), "sublet", metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		q.Spec.Hard[what] = resource.MustParse(n)
		_, err = quotas.Update(t.Context(), q, metav1.UpdateOptions{})
		return err == nil, err
	})
	wait(t, "the quota is known", func() (bool, any) {
		q, err := quotas.Get(t.Context(), "sublet", metav1.GetOptions{})
		hard := q.Status.Hard[what]
		return err == nil && hard.Cmp(resource.MustParse(n)) == 0, q
	})
}

func hostService(t *testing.T, ns, name, what string, is func(*corev1.Service) bool) {
	t.Helper()
	wait(t, what, func() (bool, any) {
		s, err := w.host.CoreV1().Services(acme.HostNamespace).Get(t.Context(), hostName(ns, name), metav1.GetOptions{})
		return err == nil && is(s), s
	})
}

func newService(t *testing.T, s *corev1.Service) *corev1.Service {
	t.Helper()
	s, err := w.tenant.CoreV1().Services(s.Namespace).Create(t.Context(), s, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := w.tenant.CoreV1().Services(s.Namespace).Delete(context.WithoutCancel(t.Context()), s.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
	return s
}

// unused waits until no Service of a test before has a node port.
func unused(t *testing.T) {
	t.Helper()
	wait(t, "node ports are free", func() (bool, any) {
		q, err := w.host.CoreV1().ResourceQuotas(acme.HostNamespace).Get(t.Context(), "sublet", metav1.GetOptions{})
		used := q.Status.Used[corev1.ResourceServicesNodePorts]
		return err == nil && used.IsZero(), q
	})
}

func TestNodePortsByPlan(t *testing.T) {
	answered(t)
	ns := namespace(t)
	offer(t, "0")
	newService(t, nodePortService(ns, "none", corev1.ServiceTypeNodePort, 30001))
	hostService(t, ns, "none", "it works inside", func(s *corev1.Service) bool { return s.Spec.Type == corev1.ServiceTypeClusterIP })
	wait(t, "an event", func() (bool, any) { return said(t.Context(), ns, "none", "reachable inside your cluster only") })
	// It would get one of those that are offered now, if the plan has just changed.
	if err := w.tenant.CoreV1().Services(ns).Delete(t.Context(), "none", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	wait(t, "it is gone", func() (bool, any) {
		_, err := w.host.CoreV1().Services(acme.HostNamespace).Get(t.Context(), hostName(ns, "none"), metav1.GetOptions{})
		return apierrors.IsNotFound(err), err
	})

	unused(t)
	offer(t, "2")
	newService(t, nodePortService(ns, "open", corev1.ServiceTypeNodePort, 30002))
	hostService(t, ns, "open", "its own port", func(s *corev1.Service) bool {
		return s.Spec.Type == corev1.ServiceTypeNodePort && s.Spec.Ports[0].NodePort == 30002
	})
	newService(t, nodePortService(ns, "balanced", corev1.ServiceTypeLoadBalancer, 30003))
	hostService(t, ns, "balanced", "a node port", func(s *corev1.Service) bool {
		return s.Spec.Type == corev1.ServiceTypeNodePort && s.Spec.Ports[0].NodePort == 30003
	})
	wait(t, "an event", func() (bool, any) { return said(t.Context(), ns, "balanced", "no load balancer is offered") })
	newService(t, nodePortService(ns, "third", corev1.ServiceTypeNodePort, 30004))
	hostService(t, ns, "third", "no more than the plan has", func(s *corev1.Service) bool { return s.Spec.Type == corev1.ServiceTypeClusterIP })
}

// A number that somebody else on the host has: the Service gets another, and says
// which.
func TestNodePortOfAnother(t *testing.T) {
	ns := namespace(t)
	unused(t)
	offer(t, "2")
	theirs, err := w.host.CoreV1().Services("default").Create(t.Context(), nodePortService("default", "theirs", corev1.ServiceTypeNodePort, 30010), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.host.CoreV1().Services("default").Delete(context.WithoutCancel(t.Context()), theirs.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	newService(t, nodePortService(ns, "web", corev1.ServiceTypeNodePort, 30010))
	var given int32
	hostService(t, ns, "web", "another port", func(s *corev1.Service) bool {
		given = s.Spec.Ports[0].NodePort
		return s.Spec.Type == corev1.ServiceTypeNodePort && given != 0 && given != 30010
	})
	wait(t, "the tenant's Service says which", func() (bool, any) {
		s, err := w.tenant.CoreV1().Services(ns).Get(t.Context(), "web", metav1.GetOptions{})
		return err == nil && s.Spec.Ports[0].NodePort == given, s
	})
	wait(t, "an event", func() (bool, any) { return said(t.Context(), ns, "web", "it got another") })
}
