package syncer

import (
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"

	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/tenant-apiserver/server"
)

func familyService(ns, name string, p corev1.IPFamilyPolicy, families ...corev1.IPFamily) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: corev1.ServiceSpec{
		Selector: map[string]string{"app": "web"}, IPFamilyPolicy: &p, IPFamilies: families,
		Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}},
	}}
}

// sameAddresses waits until the host Service has the very addresses of the tenant's.
func sameAddresses(t *testing.T, ns, name string, n int) {
	t.Helper()
	wait(t, fmt.Sprintf("%d addresses of %s on both sides", n, name), func() (bool, any) {
		own, err := w.tenant.CoreV1().Services(ns).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		for _, ip := range own.Spec.ClusterIPs {
			if a, err := netip.ParseAddr(ip); err != nil || !acme.OwnsService(a) {
				t.Fatalf("the tenant's Service has the address %s", ip)
			}
		}
		host, err := w.host.CoreV1().Services(acme.HostNamespace).Get(t.Context(), hostName(ns, name), metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		return len(own.Spec.ClusterIPs) == n && slices.Equal(own.Spec.ClusterIPs, host.Spec.ClusterIPs) && slices.Equal(own.Spec.IPFamilies, host.Spec.IPFamilies),
			fmt.Sprintf("the tenant's %v, the host's %v", own.Spec.ClusterIPs, host.Spec.ClusterIPs)
	})
}

// setPolicy changes which families a tenant's Service asks for.
func setPolicy(t *testing.T, ns, name string, p corev1.IPFamilyPolicy) {
	t.Helper()
	wait(t, "the Service is changed", func() (bool, any) {
		own, err := w.tenant.CoreV1().Services(ns).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		own.Spec.IPFamilyPolicy = &p
		_, err = w.tenant.CoreV1().Services(ns).Update(t.Context(), own, metav1.UpdateOptions{})
		return err == nil, err
	})
}

// On a host with both families a tenant's Services have, of its own ranges, what they
// ask for, on both sides the same; their endpoints come in both families, too.
func TestBothFamilies(t *testing.T) {
	ns := namespace(t)
	web := create(t, simplePod(ns, "web"))
	onHost := waitHostPod(t, ns, "web", web.UID)
	setRunning(t, onHost, "10.244.9.1", "fd00:244::901")
	defer dropPod(t, web, onHost)

	newService(t, familyService(ns, "prefers", corev1.IPFamilyPolicyPreferDualStack))
	sameAddresses(t, ns, "prefers", 2)
	newService(t, familyService(ns, "requires", corev1.IPFamilyPolicyRequireDualStack, corev1.IPv6Protocol, corev1.IPv4Protocol))
	sameAddresses(t, ns, "requires", 2)
	newService(t, familyService(ns, "six", corev1.IPFamilyPolicySingleStack, corev1.IPv6Protocol))
	sameAddresses(t, ns, "six", 1)
	newService(t, familyService(ns, "single", corev1.IPFamilyPolicySingleStack))
	sameAddresses(t, ns, "single", 1)

	wait(t, "endpoints of both families", func() (bool, any) {
		list, err := w.host.DiscoveryV1().EndpointSlices(acme.HostNamespace).List(t.Context(), metav1.ListOptions{
			LabelSelector: discoveryv1.LabelServiceName + "=" + hostName(ns, "prefers")})
		if err != nil {
			return false, err
		}
		got := map[discoveryv1.AddressType]string{}
		for _, s := range list.Items {
			for _, e := range s.Endpoints {
				got[s.AddressType] += e.Addresses[0]
			}
		}
		return got[discoveryv1.AddressTypeIPv4] == "10.244.9.1" && got[discoveryv1.AddressTypeIPv6] == "fd00:244::901", got
	})

	setPolicy(t, ns, "single", corev1.IPFamilyPolicyRequireDualStack)
	sameAddresses(t, ns, "single", 2)
	setPolicy(t, ns, "single", corev1.IPFamilyPolicySingleStack)
	sameAddresses(t, ns, "single", 1)
	setPolicy(t, ns, "single", corev1.IPFamilyPolicyPreferDualStack) // with another second address
	sameAddresses(t, ns, "single", 2)
}

// The control: a tenant of a host with one family. Its API refuses to promise both, as
// upstream's does.
func TestOneFamily(t *testing.T) {
	dir := t.TempDir()
	ca, err := pki.LoadOrCreate(filepath.Join(dir, "pki"), "single")
	if err != nil {
		t.Fatal(err)
	}
	own, err := server.Start(t.Context(), server.Config{
		Name: "single", StorePath: filepath.Join(dir, "store.db"), PKI: ca, ServiceCIDR: netip.MustParsePrefix("10.96.12.0/22"),
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := own.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	api, err := kubernetes.NewForConfig(own.Loopback())
	if err != nil {
		t.Fatal(err)
	}
	services := api.CoreV1().Services(metav1.NamespaceDefault)
	if _, err := services.Create(t.Context(), familyService("", "requires", corev1.IPFamilyPolicyRequireDualStack), metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("both families: %v", err)
	}
	s, err := services.Create(t.Context(), familyService("", "prefers", corev1.IPFamilyPolicyPreferDualStack), metav1.CreateOptions{})
	if err != nil || len(s.Spec.ClusterIPs) != 1 || s.Spec.IPFamilies[0] != corev1.IPv4Protocol {
		t.Errorf("%v, %+v", err, s)
	}
}
