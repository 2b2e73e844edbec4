package translate

import (
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// TestEveryFieldIsDecided fails when the linked API has a field that nobody has
// decided about, and when the table names one that is not there.
func TestEveryFieldIsDecided(t *testing.T) {
	seen := map[string]bool{}
	checkType(t, reflect.TypeFor[corev1.PodSpec](), seen)
	checkType(t, reflect.TypeFor[corev1.EphemeralContainer](), seen)
	checkType(t, reflect.TypeFor[networkingv1.NetworkPolicySpec](), seen)
	checkType(t, reflect.TypeFor[corev1.ServiceSpec](), seen)
	checkType(t, reflect.TypeFor[networkingv1.IngressSpec](), seen)
	checkType(t, reflect.TypeFor[gatewayv1.GatewaySpec](), seen)
	checkType(t, reflect.TypeFor[gatewayv1.HTTPRouteSpec](), seen)
	for name := range decisions {
		if !seen[name] {
			t.Errorf("decisions on %s, which no decided field leads to", name)
		}
	}
}

func checkType(t *testing.T, at reflect.Type, seen map[string]bool) {
	for at.Kind() == reflect.Pointer || at.Kind() == reflect.Slice || at.Kind() == reflect.Map {
		at = at.Elem()
	}
	if !decided(at) || seen[at.Name()] {
		return
	}
	seen[at.Name()] = true
	table, fields := decisions[at.Name()], map[string]bool{}
	for i := range at.NumField() {
		f := at.Field(i)
		fields[f.Name] = true
		switch table[f.Name].verdict {
		case undecided:
			t.Errorf("no decision on %s.%s", at.Name(), f.Name)
		case copied, translated:
			checkType(t, f.Type, seen)
		}
	}
	for name := range table {
		if !fields[name] {
			t.Errorf("decision on %s.%s, which is not in the API", at.Name(), name)
		}
	}
}

// TestForcedFieldsAreOurs fills a whole spec with a tenant's values and looks for
// them on the host wherever the table says that they must not get there.
func TestForcedFieldsAreOurs(t *testing.T) {
	for name, d := range decisions["PodSpec"] {
		f, ok := reflect.TypeFor[corev1.PodSpec]().FieldByName(name)
		if !ok || f.Type.Kind() != reflect.String || d.verdict != forced && d.verdict != dropped {
			continue
		}
		pod := plainPod()
		reflect.ValueOf(&pod.Spec).Elem().FieldByName(name).SetString("tenants-own")
		b := podBuilder{Translation: Translation{Tenant: testTenant, Lookup: nothing{}, Data: nothing{}}, tenantPod: pod}
		if got := reflect.ValueOf(b.spec()).FieldByName(name).String(); strings.Contains(got, "tenants-own") {
			t.Errorf("spec.%s reached the host", name)
		}
	}
}

// TestRefusedFieldsAreRefused sets every refused field of every type that a pod can
// hold, one at a time.
func TestRefusedFieldsAreRefused(t *testing.T) {
	for typeName, sample := range map[string]func(*corev1.Pod) any{
		"PodSpec":      func(p *corev1.Pod) any { return &p.Spec },
		"VolumeSource": func(p *corev1.Pod) any { p.Spec.Volumes = []corev1.Volume{{}}; return &p.Spec.Volumes[0].VolumeSource },
		"Container":    func(p *corev1.Pod) any { return &p.Spec.Containers[0] },
		"SecurityContext": func(p *corev1.Pod) any {
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{}
			return p.Spec.Containers[0].SecurityContext
		},
		"PodSecurityContext": func(p *corev1.Pod) any {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{}
			return p.Spec.SecurityContext
		},
		"ContainerPort": func(p *corev1.Pod) any {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{}}
			return &p.Spec.Containers[0].Ports[0]
		},
		"VolumeMount": func(p *corev1.Pod) any {
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{}}
			return &p.Spec.Containers[0].VolumeMounts[0]
		},
		"HTTPGetAction": func(p *corev1.Pod) any {
			p.Spec.Containers[0].LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{}}}
			return p.Spec.Containers[0].LivenessProbe.HTTPGet
		},
	} {
		for field, d := range decisions[typeName] {
			if d.verdict != refused {
				continue
			}
			pod := plainPod()
			v := reflect.ValueOf(sample(pod)).Elem().FieldByName(field)
			fill(v)
			found := refusals(&pod.Spec)
			if len(found) == 0 {
				t.Errorf("%s.%s is not refused", typeName, field)
			}
			for _, r := range found {
				if r.Reason == "" || !strings.HasPrefix(r.Field, "spec.") {
					t.Errorf("%s.%s: refusal without reason or path: %+v", typeName, field, r)
				}
			}
		}
	}
}

// fill gives v some value.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32, reflect.Int64:
		v.SetInt(1)
	}
}

// statusFields are the decisions on what a tenant sees of the state of its pods and
// Services: true for what PodStatus, containers and ServiceStatus give, false for what they keep back.
var statusFields = map[string]map[string]bool{
	"PodStatus": {
		"ObservedGeneration": true, "Phase": true, "Conditions": true, "Message": true, "Reason": true, "HostIP": true,
		"HostIPs": true, "PodIP": true, "PodIPs": true, "StartTime": true, "InitContainerStatuses": true,
		"ContainerStatuses": true, "QOSClass": true, "EphemeralContainerStatuses": true, "Resize": true,
		"AllocatedResources": true, "Resources": true, "NominatedNodeName": true,
		"ResourceClaimStatuses": false, "ExtendedResourceClaimStatus": false,
		"NodeAllocatableResourceClaimStatuses": false, "VolumeHealth": false,
	},
	"ServiceStatus":       {"LoadBalancer": true, "Conditions": false},
	"LoadBalancerStatus":  {"Ingress": true},
	"LoadBalancerIngress": {"IP": true, "Hostname": true, "IPMode": true, "Ports": true},
	"PortStatus":          {"Port": true, "Protocol": true, "Error": true},

	"GatewayStatus":        {"Addresses": true, "Conditions": true, "Listeners": true, "AttachedListenerSets": false},
	"GatewayStatusAddress": {"Type": true, "Value": true},
	"ListenerStatus":       {"Name": true, "SupportedKinds": true, "AttachedRoutes": true, "Conditions": true},
	"HTTPRouteStatus":      {"RouteStatus": true},
	"RouteStatus":          {"Parents": true},
	"RouteParentStatus":    {"ParentRef": true, "ControllerName": true, "Conditions": true},
	"Condition":            {"Type": true, "Status": true, "ObservedGeneration": true, "LastTransitionTime": true, "Reason": true, "Message": true},

	"IngressStatus":              {"LoadBalancer": true},
	"IngressLoadBalancerStatus":  {"Ingress": true},
	"IngressLoadBalancerIngress": {"IP": true, "Hostname": true, "Ports": true},
	"IngressPortStatus":          {"Port": true, "Protocol": true, "Error": true},
	"ContainerStatus": {
		"Name": true, "State": true, "LastTerminationState": true, "Ready": true, "RestartCount": true, "Image": true,
		"ImageID": true, "ContainerID": true, "Started": true, "AllocatedResources": true, "Resources": true,
		"VolumeMounts": true, "User": true, "StopSignal": true, "AllocatedResourcesStatus": false,
	},
}

func TestEveryStatusFieldIsDecided(t *testing.T) {
	for name, at := range map[string]reflect.Type{
		"PodStatus": reflect.TypeFor[corev1.PodStatus](), "ContainerStatus": reflect.TypeFor[corev1.ContainerStatus](),
		"ServiceStatus": reflect.TypeFor[corev1.ServiceStatus](), "LoadBalancerStatus": reflect.TypeFor[corev1.LoadBalancerStatus](),
		"IngressStatus": reflect.TypeFor[networkingv1.IngressStatus](), "IngressLoadBalancerStatus": reflect.TypeFor[networkingv1.IngressLoadBalancerStatus](),
		"IngressLoadBalancerIngress": reflect.TypeFor[networkingv1.IngressLoadBalancerIngress](), "IngressPortStatus": reflect.TypeFor[networkingv1.IngressPortStatus](),
		"GatewayStatus": reflect.TypeFor[gatewayv1.GatewayStatus](), "GatewayStatusAddress": reflect.TypeFor[gatewayv1.GatewayStatusAddress](),
		"ListenerStatus": reflect.TypeFor[gatewayv1.ListenerStatus](), "HTTPRouteStatus": reflect.TypeFor[gatewayv1.HTTPRouteStatus](),
		"RouteStatus": reflect.TypeFor[gatewayv1.RouteStatus](), "RouteParentStatus": reflect.TypeFor[gatewayv1.RouteParentStatus](),
		"Condition":           reflect.TypeFor[metav1.Condition](),
		"LoadBalancerIngress": reflect.TypeFor[corev1.LoadBalancerIngress](), "PortStatus": reflect.TypeFor[corev1.PortStatus](),
	} {
		for i := range at.NumField() {
			if _, ok := statusFields[name][at.Field(i).Name]; !ok {
				t.Errorf("no decision on %s.%s", name, at.Field(i).Name)
			}
		}
	}
}

func plainPod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "u1"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app:1"}}},
	}
}
