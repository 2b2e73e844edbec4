package syncer

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/isolation/tenant"
)

// eventSays waits until an event about an object says something.
func eventSays(t *testing.T, ns, name, text string) {
	t.Helper()
	wait(t, "an event on "+name, func() (bool, any) { return said(t.Context(), ns, name, text) })
}

// TestForeignAddresses: a tenant gives its own API the range of another tenant, and of
// the host's own Services, and takes addresses there. They stay its own API's affair.
func TestForeignAddresses(t *testing.T) {
	ns := namespace(t)
	for i, cidr := range []string{"10.96.8.0/24", "10.96.0.0/24"} {
		stolen := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("stolen-", i)}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{cidr}}}
		if _, err := w.tenant.NetworkingV1().ServiceCIDRs().Create(t.Context(), stolen, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		wait(t, "the range", func() (bool, any) {
			c, err := w.tenant.NetworkingV1().ServiceCIDRs().Get(t.Context(), stolen.Name, metav1.GetOptions{})
			return err == nil && apimeta.IsStatusConditionTrue(c.Status.Conditions, networkingv1.ServiceCIDRConditionReady), c
		})
	}
	serve := func(name, address string) {
		t.Helper()
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: corev1.ServiceSpec{ClusterIP: address, Ports: []corev1.ServicePort{{Port: 80}}}}
		wait(t, "the Service "+name, func() (bool, any) { // the range takes a moment to be used
			_, err := w.tenant.CoreV1().Services(ns).Create(t.Context(), s, metav1.CreateOptions{})
			return err == nil, err
		})
	}
	serve("own", "10.96.4.33") // of those that are never given to Services without a choice (KEP-3070)
	hostService(t, ns, "own", "its own address", func(s *corev1.Service) bool { return s.Spec.ClusterIP == "10.96.4.33" })
	for name, address := range map[string]string{"dns-of-another": "10.96.8.10", "of-the-host": "10.96.0.77"} {
		serve(name, address)
		eventSays(t, ns, name, "not of your cluster's range")
		if _, err := w.host.CoreV1().Services(acme.HostNamespace).Get(t.Context(), hostName(ns, name), metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("%s is on the host: %v", name, err)
		}
	}
	// Other tests' Services would get such addresses, too.
	for _, name := range []string{"own", "dns-of-another", "of-the-host"} {
		if err := w.tenant.CoreV1().Services(ns).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	wait(t, "the end of the ranges", func() (bool, any) {
		ranges := w.tenant.NetworkingV1().ServiceCIDRs()
		first, second := ranges.Delete(t.Context(), "stolen-0", metav1.DeleteOptions{}), ranges.Delete(t.Context(), "stolen-1", metav1.DeleteOptions{})
		return apierrors.IsNotFound(first) && apierrors.IsNotFound(second), []error{first, second}
	})
}

// TestDevicesAreNotOffered: what a node has of devices and huge pages is not the
// tenant's to ask for; its API takes the pod, and the host never sees it.
func TestDevicesAreNotOffered(t *testing.T) {
	ns := namespace(t)
	own := simplePod(ns, "gpu")
	own.Spec.Containers[0].Resources.Limits = corev1.ResourceList{"nvidia.com/gpu": resource.MustParse("1")}
	create(t, own)
	waitTenantPod(t, ns, "gpu", "refused", func(p *corev1.Pod) bool {
		return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodScheduled && c.Reason == "Refused" && strings.Contains(c.Message, "nvidia.com/gpu")
		})
	})
	if _, err := w.host.CoreV1().Pods(acme.HostNamespace).Get(t.Context(), hostName(ns, "gpu"), metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("it is on the host: %v", err)
	}
}

// TestNothingIsImported: what somebody puts into the host namespace, be it with all of
// the tenant's marks, does not come to be in the tenant, and no object of the tenant's
// follows it.
func TestNothingIsImported(t *testing.T) {
	ns := namespace(t)
	host, own := anyKind(t, hostConfig), anyKind(t, w.tenantConfig)
	meta := func(name string) metav1.ObjectMeta {
		m := metav1.ObjectMeta{Namespace: acme.HostNamespace, Name: hostName(ns, name)}
		m.Labels, m.Annotations = tenant.Owner{Tenant: acme.ID, Name: tenant.Name{Namespace: ns, Name: name}, UID: "11111111-1111-1111-1111-111111111111"}.Marks()
		return m
	}
	pod := simplePod("", "x")
	pod.ObjectMeta = meta("planted-pod")
	class, no := acme.Sandbox.RuntimeClass(), false
	pod.Spec.RuntimeClassName, pod.Spec.AutomountServiceAccountToken = &class, &no
	planted := []client.Object{
		&corev1.ConfigMap{ObjectMeta: meta("planted-map"), Data: map[string]string{"a": "b"}}, &corev1.Secret{ObjectMeta: meta("planted-secret")},
		&corev1.Service{ObjectMeta: meta("planted-service"), Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}, pod,
	}
	for _, o := range planted {
		if err := host.Create(t.Context(), o); err != nil {
			t.Fatalf("%T: %v", o, err)
		}
	}
	for _, o := range planted {
		wait(t, fmt.Sprintf("the syncer's answer to a planted %T", o), func() (bool, any) {
			w.syncer().Patrol(t.Context())
			err := host.Get(t.Context(), client.ObjectKeyFromObject(o), o)
			if err == nil && o.GetDeletionTimestamp() != nil {
				err = client.IgnoreNotFound(host.Delete(t.Context(), o, client.GracePeriodSeconds(0)))
			}
			return apierrors.IsNotFound(err), err
		})
		key := client.ObjectKey{Namespace: ns, Name: o.GetAnnotations()[tenant.AnnotationName]}
		if err := own.Get(t.Context(), key, o.DeepCopyObject().(client.Object)); !apierrors.IsNotFound(err) {
			t.Errorf("%T %s is in the tenant: %v", o, key, err)
		}
	}
	// The other way it works: the control.
	real := create(t, simplePod(ns, "planted-pod"))
	dropPod(t, real, waitHostPod(t, ns, "planted-pod", real.UID))
}

// TestBombs: objects that are as large as an API takes them, and larger on the host,
// hold up nothing else of the tenant's; it is told which did not get there.
func TestBombs(t *testing.T) {
	ns := namespace(t)
	big := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "big"}, Data: map[string]string{"x": strings.Repeat("x", 1<<20-1024)}}
	if _, err := w.tenant.CoreV1().ConfigMaps(ns).Create(t.Context(), big, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	whole := simplePod(ns, "whole")
	whole.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "big"}}}}
	labels := simplePod(ns, "labels")
	for i := range 3000 {
		labels.Labels[fmt.Sprint("l", i)] = strings.Repeat("v", 63)
	}
	// Quoted, as the downward API shows it, it is more than the host's API takes.
	quotes := simplePod(ns, "quotes")
	quotes.Annotations = map[string]string{"q": strings.Repeat(`"`, 200<<10)}
	quotes.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.annotations['q']"}}}}
	quotes.Spec.Volumes = []corev1.Volume{{Name: "me", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{
		Items: []corev1.DownwardAPIVolumeFile{{Path: "a", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.annotations"}}}}}}}
	var env []corev1.EnvVar
	for i := range 8000 {
		env = append(env, corev1.EnvVar{Name: fmt.Sprint("E", i), Value: strings.Repeat("e", 50)})
	}
	wide := simplePod(ns, "wide")
	wide.Spec.Containers[0].Env = env
	for _, p := range []*corev1.Pod{whole, labels, quotes, wide} {
		*p = *create(t, p)
	}
	small := create(t, simplePod(ns, "small"))
	dropPod(t, small, waitHostPod(t, ns, "small", small.UID))
	dropPod(t, whole, waitHostPod(t, ns, "whole", whole.UID))
	for _, p := range []*corev1.Pod{labels, quotes, wide} {
		var hostPod *corev1.Pod
		wait(t, p.Name+" on the host, or word of it", func() (bool, any) {
			var err error
			if hostPod, err = w.host.CoreV1().Pods(acme.HostNamespace).Get(t.Context(), hostName(ns, p.Name), metav1.GetOptions{}); err == nil {
				return true, nil
			}
			hostPod = nil
			now, err := tenantPod(t, ns, p.Name)
			if err != nil {
				return false, err
			}
			return slices.ContainsFunc(now.Status.Conditions, func(c corev1.PodCondition) bool { return c.Reason == "HostRefused" }), now.Status
		})
		if hostPod != nil {
			onlyOurs(t, hostPod)
			dropPod(t, p, hostPod)
		} else if p == wide || p == labels {
			t.Errorf("%s is not on the host", p.Name)
		}
	}
}
