package syncer

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/translate"
)

// balance gives the tenant a plan with load balancers: the quota, what the host's
// admission goes by, and what the syncer does.
func balance(t *testing.T, n string, offer translate.LoadBalancers) {
	t.Helper()
	offer.Offered = n != "0"
	s := w.syncer()
	t.Cleanup(func() { s.SetLoadBalancers(translate.LoadBalancers{}) })
	annotate(t, offer)
	allow(t, corev1.ResourceServicesLoadBalancers, n)
	s.SetLoadBalancers(offer)
}

func annotate(t *testing.T, offer translate.LoadBalancers) {
	t.Helper()
	forced := ""
	for k, v := range offer.Annotations { // one at most
		forced = k + "=" + v
	}
	class := ""
	if len(offer.Classes) > 0 {
		class = offer.Classes[0]
	}
	patch := []byte(`{"metadata":{"annotations":{"` + tenant.AnnotationLoadBalancerClasses + `":"` + class + `","` + tenant.AnnotationForced + `":"` + forced + `"}}}`)
	if _, err := w.host.CoreV1().Namespaces().Patch(t.Context(), acme.HostNamespace, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

func isBalanced(s *corev1.Service) bool { return s.Spec.Type == corev1.ServiceTypeLoadBalancer }

func TestLoadBalancersByPlan(t *testing.T) {
	answered(t)
	ns := namespace(t)
	unused(t)
	offer(t, "1")
	balance(t, "1", translate.LoadBalancers{Classes: []string{"example.com/public"}, Annotations: map[string]string{"example.com/pool": "tenants"}})
	open := nodePortService(ns, "open", corev1.ServiceTypeLoadBalancer, 30020)
	open.Annotations = map[string]string{"example.com/pool": "system", "example.com/internal": "false"}
	open.Spec.LoadBalancerSourceRanges = []string{"203.0.113.0/24"}
	open.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	newService(t, open)
	hostService(t, ns, "open", "a load balancer as the plan says", func(s *corev1.Service) bool {
		_, tenants := s.Annotations["example.com/internal"]
		return isBalanced(s) && *s.Spec.LoadBalancerClass == "example.com/public" && s.Annotations["example.com/pool"] == "tenants" && !tenants &&
			s.Spec.LoadBalancerSourceRanges[0] == "203.0.113.0/24" && s.Spec.Ports[0].NodePort == 30020 && s.Spec.HealthCheckNodePort != 0
	})
	other := nodePortService(ns, "class", corev1.ServiceTypeLoadBalancer, 0)
	class := "example.com/system"
	other.Spec.LoadBalancerClass = &class
	newService(t, other)
	wait(t, "an event", func() (bool, any) {
		return said(t.Context(), ns, "class", "your plan has no such class: it has example.com/public")
	})
	wait(t, "the quota counts it", func() (bool, any) {
		q, err := w.host.CoreV1().ResourceQuotas(acme.HostNamespace).Get(t.Context(), "sublet", metav1.GetOptions{})
		used := q.Status.Used[corev1.ResourceServicesLoadBalancers]
		return err == nil && used.Value() == 1, q.Status
	})
	newService(t, nodePortService(ns, "second", corev1.ServiceTypeLoadBalancer, 0))
	hostService(t, ns, "second", "it works inside", func(s *corev1.Service) bool { return s.Spec.Type == corev1.ServiceTypeClusterIP })
	wait(t, "an event", func() (bool, any) {
		return said(t.Context(), ns, "second", "your plan has no load balancer, or no more")
	})

	// The plan grows: a load balancer without node ports, for of those there is no more.
	allow(t, corev1.ResourceServicesLoadBalancers, "2")
	w.syncer().SetLoadBalancers(translate.LoadBalancers{Offered: true, Classes: []string{"example.com/public"}})
	hostService(t, ns, "second", "a load balancer without node ports", func(s *corev1.Service) bool {
		return isBalanced(s) && !*s.Spec.AllocateLoadBalancerNodePorts && s.Spec.Ports[0].NodePort == 0
	})
	hostService(t, ns, "open", "no annotation of the plan before", func(s *corev1.Service) bool { return s.Annotations["example.com/pool"] == "" })
	// It ends: what is there stays.
	allow(t, corev1.ResourceServicesLoadBalancers, "0")
	w.syncer().SetLoadBalancers(translate.LoadBalancers{})
	relabel(t, ns, "open")
	hostService(t, ns, "open", "it stays", func(s *corev1.Service) bool { return isBalanced(s) && len(s.Spec.LoadBalancerSourceRanges) == 2 })
}

// relabel changes the ranges of a Service: whoever sees that has looked at all of it.
func relabel(t *testing.T, ns, name string) {
	t.Helper()
	patch := []byte(`{"spec":{"loadBalancerSourceRanges":["203.0.113.0/24","198.51.100.0/24"]}}`)
	if _, err := w.tenant.CoreV1().Services(ns).Patch(t.Context(), name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

// What the host's controller does to a load balancer: its address comes up, what it
// wrote stays, and it can clean up before the Service goes.
func TestLoadBalancerOfTheHost(t *testing.T) {
	ns := namespace(t)
	unused(t)
	offer(t, "1")
	balance(t, "1", translate.LoadBalancers{})
	services, name := w.host.CoreV1().Services(acme.HostNamespace), hostName(ns, "web")
	tenantService := nodePortService(ns, "web", corev1.ServiceTypeLoadBalancer, 0)
	if _, err := w.tenant.CoreV1().Services(ns).Create(t.Context(), tenantService, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	hostService(t, ns, "web", "a load balancer", isBalanced)
	patch := []byte(`{"metadata":{"finalizers":["service.kubernetes.io/load-balancer-cleanup"],"annotations":{"cloud.example/id":"7"}}}`)
	if _, err := services.Patch(t.Context(), name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	status := []byte(`{"status":{"loadBalancer":{"ingress":[{"ip":"203.0.113.80","ipMode":"VIP"}]}}}`)
	if _, err := services.Patch(t.Context(), name, types.MergePatchType, status, metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	address := func() (bool, any) {
		s, err := w.tenant.CoreV1().Services(ns).Get(t.Context(), "web", metav1.GetOptions{})
		return err == nil && len(s.Status.LoadBalancer.Ingress) == 1 && s.Status.LoadBalancer.Ingress[0].IP == "203.0.113.80", s
	}
	wait(t, "the address", address)
	forged := []byte(`{"status":{"loadBalancer":{"ingress":[{"ip":"198.51.100.9"}]}}}`)
	if _, err := w.tenant.CoreV1().Services(ns).Patch(t.Context(), "web", types.MergePatchType, forged, metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	wait(t, "the address again", address)
	relabel(t, ns, "web")
	hostService(t, ns, "web", "what the host wrote", func(s *corev1.Service) bool {
		return len(s.Spec.LoadBalancerSourceRanges) == 2 && s.Annotations["cloud.example/id"] == "7" && len(s.Finalizers) == 1
	})

	if err := w.tenant.CoreV1().Services(ns).Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	hostService(t, ns, "web", "it waits for the host", func(s *corev1.Service) bool { return s.DeletionTimestamp != nil })
	if _, err := services.Patch(t.Context(), name, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}); err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	wait(t, "it is gone", func() (bool, any) {
		_, err := services.Get(t.Context(), name, metav1.GetOptions{})
		return apierrors.IsNotFound(err), err
	})
}

// The tenant's identity on the host, in the wrong hands: what configures load balancers
// is refused by the host itself.
func TestHostRefusesToConfigureLoadBalancers(t *testing.T) {
	offer(t, "3")
	balance(t, "1", translate.LoadBalancers{Classes: []string{"example.com/public"}, Annotations: map[string]string{"example.com/pool": "tenants"}})
	c := rest.CopyConfig(quick(hostConfig))
	c.Impersonate.UserName = tenant.WriteUser(acme.HostNamespace)
	writer, err := kubernetes.NewForConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	services := writer.CoreV1().Services(acme.HostNamespace)
	create := func(change func(*corev1.Service)) error {
		class := "example.com/public"
		s := nodePortService(acme.HostNamespace, "forged", corev1.ServiceTypeLoadBalancer, 0)
		s.Spec.Selector, s.Spec.LoadBalancerClass = nil, &class
		change(s)
		_, err := services.Create(t.Context(), s, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	for name, change := range map[string]func(*corev1.Service){
		"a class":       func(s *corev1.Service) { *s.Spec.LoadBalancerClass = "example.com/system" },
		"no class":      func(s *corev1.Service) { s.Spec.LoadBalancerClass = nil },
		"an annotation": func(s *corev1.Service) { s.Annotations = map[string]string{"example.com/pool": "system"} },
		"an address":    func(s *corev1.Service) { s.Spec.LoadBalancerIP = "192.0.2.1" }, //nolint:staticcheck // still honoured by load balancers
	} {
		wait(t, "refusal of "+name, func() (bool, any) { err := create(change); return apierrors.IsInvalid(err), err }) // admission learns of the namespace by watching it
	}
	wait(t, "what the plan has", func() (bool, any) {
		err := create(func(s *corev1.Service) { s.Annotations = map[string]string{"example.com/pool": "tenants"} })
		return err == nil, err
	})
	_, err = services.UpdateStatus(context.WithoutCancel(t.Context()), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}}, metav1.UpdateOptions{})
	if !apierrors.IsForbidden(err) {
		t.Errorf("it may write what load balancers say: %v", err)
	}
}
