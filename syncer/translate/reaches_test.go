package translate_test

import (
	"bytes"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/translate"
)

// side is a kind on its way: an object as one side has it, and what the other side
// has of it.
type side struct {
	name string
	// from is the object of an honest author.
	from runtime.Object
	// to gives what the other side has; nothing for what is refused.
	to func(from runtime.Object) []any
}

var one = translation(tenant.GVisor, &corev1.Pod{
	ObjectMeta: metav1.ObjectMeta{Namespace: "sublet-acme", Name: "host-pod", UID: "h1"}, Status: corev1.PodStatus{PodIP: "10.244.0.9"}})

func meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "shop", Name: name, UID: "u7"}
}

func plainTenantPod() *corev1.Pod {
	return &corev1.Pod{ObjectMeta: meta("web"), Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app:1"}}}}
}

// podDown is all that the host has of a pod, also of what is changed later.
func podDown(o runtime.Object) []any {
	tenantPod := o.(*corev1.Pod)
	hostPod, refused := one.Pod(tenantPod)
	if len(refused) > 0 {
		return nil
	}
	hostPod.UID = "h1"
	hostPod, _ = one.EphemeralContainers(tenantPod, hostPod)
	hostPod, _ = translate.Resize(tenantPod, hostPod)
	hostPod.UID = ""
	return []any{hostPod, one.TokenSecret(tenantPod, nil)}
}

func serviceOf(kind corev1.ServiceType) *corev1.Service {
	s := &corev1.Service{ObjectMeta: meta("web"), Spec: corev1.ServiceSpec{Type: kind, ClusterIP: "10.96.4.20", Ports: []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}}}}
	if kind == corev1.ServiceTypeNodePort || kind == corev1.ServiceTypeLoadBalancer {
		s.Spec.Ports[0].NodePort = 30080
	}
	return s
}

// plainIngress is one of a class and for a hostname that the tenant has.
func plainIngress() *networkingv1.Ingress {
	backend := networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80}}}
	return &networkingv1.Ingress{ObjectMeta: meta("web"), Spec: networkingv1.IngressSpec{
		IngressClassName: ptr.To("public"), TLS: []networkingv1.IngressTLS{{Hosts: []string{"shop.example"}, SecretName: "cert"}},
		Rules: []networkingv1.IngressRule{{Host: "shop.example", IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{
			Paths: []networkingv1.HTTPIngressPath{{Path: "/", PathType: ptr.To(networkingv1.PathTypePrefix), Backend: backend}}}}}},
	}}
}

// ingressDown is all that the host has of an Ingress of a tenant that has one hostname.
func ingressDown(o runtime.Object) []any {
	tenantIngress := o.(*networkingv1.Ingress)
	hostIngress, _ := one.Ingress(tenantIngress, translate.Ingresses{Classes: []string{"public"}}, []string{"shop.example"}, nil)
	if hostIngress == nil {
		return nil
	}
	return []any{hostIngress, one.Hostnames(tenantIngress)}
}

// down are the kinds that go to the host.
func down() []side {
	sides := []side{
		{"Pod", plainTenantPod(), podDown},
		{"EndpointSlice", &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: "web-1", UID: "u7", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
			AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.244.0.9"}}},
		}, func(o runtime.Object) []any { return []any{one.EndpointSlice(o.(*discoveryv1.EndpointSlice))} }},
		{"NetworkPolicy", &networkingv1.NetworkPolicy{ObjectMeta: meta("web")}, func(o runtime.Object) []any {
			hostPolicy, _ := one.NetworkPolicy(o.(*networkingv1.NetworkPolicy))
			return []any{hostPolicy}
		}},
		{"Ingress", plainIngress(), ingressDown},
		{"PersistentVolumeClaim", plainClaim(), func(o runtime.Object) []any {
			hostClaim, refused := one.Claim(o.(*corev1.PersistentVolumeClaim), offered)
			if len(refused) > 0 {
				return nil
			}
			return []any{hostClaim}
		}},
		{"ConfigMap", &corev1.ConfigMap{ObjectMeta: meta("settings")}, func(o runtime.Object) []any { return []any{one.ConfigMap(o.(*corev1.ConfigMap))} }},
		{"Secret", &corev1.Secret{ObjectMeta: meta("creds")}, func(o runtime.Object) []any { return []any{one.Secret(o.(*corev1.Secret))} }},
	}
	for _, kind := range []corev1.ServiceType{corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeExternalName} {
		sides = append(sides, side{"Service/" + string(kind), serviceOf(kind), func(o runtime.Object) []any { return []any{one.Service(o.(*corev1.Service))} }})
	}
	return append(sides, side{"Service/balanced", serviceOf(corev1.ServiceTypeLoadBalancer), func(o runtime.Object) []any {
		s := o.(*corev1.Service)
		plain := one.Service(s)
		if plain == nil || s.Spec.Type != corev1.ServiceTypeLoadBalancer {
			return nil
		}
		balanced, refused := translate.LoadBalancers{Offered: true, Classes: []string{"outer", "inner"}}.Balance(plain, s, nil)
		if len(refused) > 0 {
			return nil
		}
		return []any{balanced}
	}})
}

// up are the kinds that a tenant is told of.
func up() []side {
	hostPod, _ := one.Pod(plainTenantPod())
	hostPod.UID, hostPod.Spec.NodeName = "h1", "worker-7"
	hostPod.Status = corev1.PodStatus{HostIP: "192.0.2.7", Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
	event := &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: "x.1"}, InvolvedObject: corev1.ObjectReference{UID: "h1"}, Source: corev1.EventSource{Component: "kubelet"}}
	hostClaim, _ := one.Claim(plainClaim(), offered)
	hostClaim.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound, Conditions: []corev1.PersistentVolumeClaimCondition{{Type: corev1.PersistentVolumeClaimResizing}}}
	return []side{
		{"Pod", hostPod, func(o runtime.Object) []any {
			up, _ := one.PodStatus(plainTenantPod(), o.(*corev1.Pod))
			return []any{up, one.NodeValues(plainTenantPod(), o.(*corev1.Pod))}
		}},
		{"Event", event, func(o runtime.Object) []any { return []any{one.Event(o.(*corev1.Event), plainTenantPod(), hostPod)} }},
		{"Node", &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "worker-7"}, Status: corev1.NodeStatus{
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			Capacity:   corev1.ResourceList{"cpu": resource.MustParse("4")}, Allocatable: corev1.ResourceList{"cpu": resource.MustParse("3")},
		}}, func(o runtime.Object) []any {
			view, _ := one.NodeStatus(o.(*corev1.Node), one.Node(o.(*corev1.Node)))
			return []any{view}
		}},
		{"PersistentVolumeClaim", hostClaim, func(o runtime.Object) []any {
			bound, _ := translate.BindClaim(o.(*corev1.PersistentVolumeClaim), plainClaim())
			bound, _ = translate.ClaimStatus(o.(*corev1.PersistentVolumeClaim), bound)
			return []any{bound, one.Volume(o.(*corev1.PersistentVolumeClaim))}
		}},
		{"StorageClass", &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "local"}, VolumeBindingMode: ptr.To(storagev1.VolumeBindingImmediate)}, func(o runtime.Object) []any {
			return []any{one.Class(o.(*storagev1.StorageClass), false)}
		}},
		{"PriorityClass", &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "gold"}, Value: 1000}, func(o runtime.Object) []any {
			return []any{one.PriorityClass(o.(*schedulingv1.PriorityClass))}
		}},
		{"Ingress", plainIngress(), func(o runtime.Object) []any {
			up, _ := translate.IngressStatus(o.(*networkingv1.Ingress), plainIngress())
			return []any{up}
		}},
		{"IngressClass", &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: "public"}}, func(o runtime.Object) []any {
			return []any{one.IngressClass(o.(*networkingv1.IngressClass), true)}
		}},
		{"Service", serviceOf(corev1.ServiceTypeNodePort), func(o runtime.Object) []any {
			merged, _ := translate.NodePorts(o.(*corev1.Service), serviceOf(corev1.ServiceTypeNodePort))
			return []any{merged}
		}},
		{"Service/balanced", serviceOf(corev1.ServiceTypeLoadBalancer), func(o runtime.Object) []any {
			merged, _ := translate.ServiceStatus(o.(*corev1.Service), serviceOf(corev1.ServiceTypeLoadBalancer))
			return []any{merged}
		}},
	}
}

// TestWhatReachesTheOtherSide puts a mark into every field of every kind that the linked
// API has, one at a time, and looks for it on the other side. testdata/reaches.txt is the
// whole list of what may arrive there, and as what, and testdata/stays.txt that of what is
// refused or left out: a field that a release adds is in neither, and fails the test.
// Whoever changes the first says that a host may obey it, or that a tenant may know it.
func TestWhatReachesTheOtherSide(t *testing.T) {
	var reach, stay bytes.Buffer
	for _, way := range []struct {
		name  string
		sides []side
	}{{"down", down()}, {"up", up()}} {
		for _, s := range way.sides {
			arrived, stayed := s.reaches(t, way.name == "down")
			if len(arrived) == 0 || len(stayed) == 0 {
				t.Errorf("%s %s: %d fields arrive and %d stay: the test shows nothing", way.name, s.name, len(arrived), len(stayed))
			}
			for _, line := range arrived {
				fmt.Fprintf(&reach, "%s %s %s\n", way.name, s.name, line)
			}
			for _, path := range s.decidedHere(stayed) {
				fmt.Fprintf(&stay, "%s %s %s\n", way.name, s.name, path)
			}
		}
	}
	holdTo(t, "testdata/reaches.txt", reach.String(), "it arrives, and must not", "it does not arrive any more")
	holdTo(t, "testdata/stays.txt", stay.String(), "it is new, or does not arrive any more", "it is not in the API any more, or arrives")
}

// decidedHere are the fields that no other list holds: a pod's spec has the table of
// decisions, and metadata is the same for all kinds.
func (s side) decidedHere(paths []string) []string {
	return slices.DeleteFunc(paths, func(path string) bool {
		return strings.HasPrefix(path, "spec.") && s.name == "Pod" || strings.HasPrefix(path, "metadata.") && s.name != "ConfigMap"
	})
}

// holdTo holds lines to those of a file, or writes them there.
func holdTo(t *testing.T, file, got, more, less string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := string(data)
	for line := range strings.Lines(got) {
		if !strings.Contains("\n"+want, "\n"+line) {
			t.Errorf("%s: %s", more, line)
		}
	}
	for line := range strings.Lines(want) {
		if !strings.Contains("\n"+got, "\n"+line) {
			t.Errorf("%s: %s", less, line)
		}
	}
}

// reaches returns a line for each field whose mark arrives, and the paths of the others.
func (s side) reaches(t *testing.T, toHost bool) (arrived, stayed []string) {
	control := flat(t, s.to(s.from.DeepCopyObject())...)
	for _, l := range leaves(reflect.TypeOf(s.from).Elem()) {
		hostile, honest := s.from.DeepCopyObject(), s.from.DeepCopyObject()
		l.put(reflect.ValueOf(hostile).Elem(), true)
		l.put(reflect.ValueOf(honest).Elem(), false)
		objects := s.to(hostile)
		without := control
		if o := s.to(honest); len(o) > 0 {
			without = flat(t, o...)
		}
		if toHost {
			onlyOurKeys(t, s.name+" "+l.path, objects)
		}
		paths := more(flat(t, objects...), without)
		switch {
		case len(paths) == 1 && paths[0] == strings.NewReplacer("{key}", "."+markText, "{cpu}", ".cpu").Replace(l.path):
			arrived = append(arrived, l.path)
		case len(paths) > 0:
			arrived = append(arrived, l.path+" -> "+strings.Join(paths, ", "))
		default:
			stayed = append(stayed, l.path)
		}
	}
	return arrived, stayed
}

// onlyOurKeys: whatever field an attacker fills, the host object's metadata is ours.
func onlyOurKeys(t *testing.T, what string, objects []any) {
	t.Helper()
	for _, o := range objects {
		if reflect.ValueOf(o).IsNil() {
			continue
		}
		m := o.(metav1.Object)
		if m.GetNamespace() != one.Tenant.HostNamespace || m.GetGenerateName() != "" || m.GetUID() != "" || m.GetResourceVersion() != "" || m.GetDeletionTimestamp() != nil ||
			len(m.GetFinalizers())+len(m.GetOwnerReferences())+len(m.GetManagedFields()) > 0 {
			t.Errorf("%s: the host's metadata is %+v", what, m)
		}
		for key := range m.GetLabels() {
			if _, slice := o.(*discoveryv1.EndpointSlice); slice && (key == discoveryv1.LabelServiceName || key == discoveryv1.LabelManagedBy || key == corev1.IsHeadlessService) {
				continue // what the host's own proxy goes by, with values of ours
			}
			if !tenant.IsKey(key) {
				t.Errorf("%s: the label %q is on the host", what, key)
			}
		}
		for key := range m.GetAnnotations() {
			if !tenant.IsKey(key) {
				t.Errorf("%s: the annotation %q is on the host", what, key)
			}
		}
		if owner, err := tenant.ReadOwner(m.GetName(), m.GetLabels(), m.GetAnnotations()); err != nil || owner.Tenant != one.Tenant.ID {
			t.Errorf("%s: it belongs to %+v, %v", what, owner, err)
		}
	}
}
