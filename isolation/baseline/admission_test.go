package baseline_test

import (
	"fmt"
	"reflect"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/baseline"
	"sublet.dev/isolation/policy/policytest"
	"sublet.dev/isolation/tenant"
)

// rulebook is the admission policies of pods and of Services as an API server of this
// version compiles them.
type rulebook struct {
	t              *testing.T
	pods, services cel.ConditionEvaluator
	ns             *corev1.Namespace
}

func compile(t *testing.T, ns *corev1.Namespace) rulebook {
	t.Helper()
	pods, _ := baseline.Admission()
	services, _ := baseline.Services()
	return rulebook{t, compiled(t, pods), compiled(t, services), ns}
}

func compiled(t *testing.T, policy *admissionv1.ValidatingAdmissionPolicy) cel.ConditionEvaluator {
	t.Helper()
	compiler, err := cel.NewCompositedCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range policy.Spec.Variables {
		r := compiler.CompileAndStoreVariable(&validating.Variable{Name: v.Name, Expression: v.Expression}, cel.OptionalVariableDeclarations{}, environment.NewExpressions)
		if r.Error != nil {
			t.Fatalf("variable %s: %v", v.Name, r.Error)
		}
	}
	var rules []cel.ExpressionAccessor
	for _, v := range policy.Spec.Validations {
		rules = append(rules, &validating.ValidationCondition{Expression: v.Expression, Message: v.Message})
	}
	return compiler.CompileCondition(rules, cel.OptionalVariableDeclarations{}, environment.NewExpressions)
}

// broken returns the message of the first rule that a request breaks, "" when it
// breaks none. An error counts as broken, as the policy fails closed.
func (b rulebook) broken(o baseline.Object, op admission.Operation) string {
	b.t.Helper()
	var was baseline.Object
	if op == admission.Update {
		was = o
	}
	return b.judge(o, was, &user.DefaultInfo{Name: "somebody"}, op)
}

func (b rulebook) judge(o, was baseline.Object, by user.Info, op admission.Operation) string {
	b.t.Helper()
	if broken := b.all(o, was, by, op); len(broken) > 0 {
		return broken[0]
	}
	return ""
}

// all returns the messages of all rules that a request breaks.
func (b rulebook) all(o, was baseline.Object, by user.Info, op admission.Operation) []string {
	b.t.Helper()
	gvk, rules := corev1.SchemeGroupVersion.WithKind("Pod"), b.pods
	if _, ok := o.(*corev1.Service); ok {
		gvk.Kind, rules = "Service", b.services
	}
	gvr := schema.GroupVersionResource{Version: "v1", Resource: "x"}
	var old runtime.Object
	if was != nil && !reflect.ValueOf(was).IsNil() {
		old = was
	}
	attr := admission.NewAttributesRecord(o, old, gvk, b.ns.Name, o.GetName(), gvr, "", op, nil, false, by)
	versioned, err := admission.NewVersionedAttributes(attr, gvk, admission.NewObjectInterfacesFromScheme(scheme.Scheme))
	if err != nil {
		b.t.Fatal(err)
	}
	request := cel.CreateAdmissionRequest(attr, metav1.GroupVersionResource(gvr), metav1.GroupVersionKind(gvk))
	results, _, err := rules.ForInput(b.t.Context(), versioned, request, cel.OptionalVariableBindings{}, b.ns, celconfig.RuntimeCELCostBudget)
	if err != nil {
		b.t.Fatal(err)
	}
	var broken []string
	for _, r := range results {
		if r.Error != nil || r.EvalResult.Value() != true {
			if r.Error != nil {
				b.t.Logf("%v", r.Error)
			}
			broken = append(broken, r.ExpressionAccessor.(*validating.ValidationCondition).Message)
		}
	}
	return broken
}

var _ runtime.Object = baseline.Object(nil)

// syncedPod is an ordinary pod of the syncer's.
func syncedPod(tn tenant.Tenant) *corev1.Pod {
	labels, annotations := tenant.Owner{Tenant: tn.ID, Name: tenant.Name{Namespace: "default", Name: "web"}, UID: "u"}.Marks()
	labels[tenant.HostLabel("app")] = "web"
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: tn.HostNamespace, Labels: labels, Annotations: annotations}}
	pod.Spec = corev1.PodSpec{
		RuntimeClassName:             ptr.To(tn.Sandbox.RuntimeClass()),
		AutomountServiceAccountToken: ptr.To(false),
		Containers:                   []corev1.Container{{Name: "c", Ports: []corev1.ContainerPort{{ContainerPort: 80}}, SecurityContext: &corev1.SecurityContext{}}},
		InitContainers:               []corev1.Container{{Name: "i"}},
		EphemeralContainers:          []corev1.EphemeralContainer{{}},
		Volumes: []corev1.Volume{
			{Name: "e", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{Name: "p", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{Secret: &corev1.SecretProjection{}}}}}},
			{Name: "i", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "app:1"}}},
		},
	}
	if tn.Sandbox == tenant.RuncUserNS {
		pod.Spec.HostUsers = ptr.To(false)
	}
	return pod
}

func TestAdmissionAllowsTheSyncer(t *testing.T) {
	for _, s := range tenant.Sandboxes() {
		tn := acme(s)
		b := compile(t, baseline.Namespace(tn))
		if msg := b.broken(syncedPod(tn), admission.Create); msg != "" {
			t.Errorf("%s: a plain pod is refused: %s", s, msg)
		}
		full := syncedPod(tn)
		share := corev1.ResourceList{"cpu": resource.MustParse("1"), "memory": resource.MustParse("1Gi"), "ephemeral-storage": resource.MustParse("1Gi")}
		full.Spec.Containers[0].Resources = corev1.ResourceRequirements{Limits: share, Requests: share}
		for _, key := range tenant.Keys() {
			full.Annotations[key] = "x"
		}
		for i := range 2000 { // as many as fit: what they cost to check has a limit
			full.Labels[tenant.HostLabel(fmt.Sprint(i))] = "x"
			full.Annotations[fmt.Sprintf("%s%016x", tenant.AnnotationField, i)] = "x"
		}
		if msg := b.broken(full, admission.Create); msg != "" {
			t.Errorf("%s: a pod with every key is refused: %s", s, msg)
		}
		running := syncedPod(tn)
		running.Spec.NodeName, running.Labels["topology.kubernetes.io/zone"] = "n1", "z"
		if msg := b.broken(running, admission.Update); msg != "" {
			t.Errorf("%s: a running pod's update is refused: %s", s, msg)
		}
		service := &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP}}
		if msg := b.broken(service, admission.Create); msg != "" {
			t.Errorf("%s: a plain service is refused: %s", s, msg)
		}
		for _, typ := range []corev1.ServiceType{corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer} { // how many is the quota's to say
			service.Spec.Type = typ
			if msg := b.broken(service, admission.Create); msg != "" {
				t.Errorf("%s: a service of type %s is refused: %s", s, typ, msg)
			}
		}
	}
}

func TestAdmissionRefuses(t *testing.T) {
	for name, change := range map[string]func(p *corev1.Pod){
		"no class":      func(p *corev1.Pod) { p.Spec.RuntimeClassName = nil },
		"another class": func(p *corev1.Pod) { p.Spec.RuntimeClassName = ptr.To("sublet-other") },
		"hostNetwork":   func(p *corev1.Pod) { p.Spec.HostNetwork = true },
		"hostPID":       func(p *corev1.Pod) { p.Spec.HostPID = true },
		"hostIPC":       func(p *corev1.Pod) { p.Spec.HostIPC = true },
		"hostPath": func(p *corev1.Pod) {
			p.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{}}
		},
		"csi": func(p *corev1.Pod) {
			p.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{}}
		},
		"token": func(p *corev1.Pod) { p.Spec.AutomountServiceAccountToken = nil },
		"projected token": func(p *corev1.Pod) {
			p.Spec.Volumes[1].Projected.Sources[0] = corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{}}
		},
		"privileged": func(p *corev1.Pod) { p.Spec.Containers[0].SecurityContext.Privileged = ptr.To(true) },
		"privileged init": func(p *corev1.Pod) {
			p.Spec.InitContainers[0].SecurityContext = &corev1.SecurityContext{Privileged: ptr.To(true)}
		},
		"privileged debug": func(p *corev1.Pod) {
			p.Spec.EphemeralContainers[0].SecurityContext = &corev1.SecurityContext{Privileged: ptr.To(true)}
		},
		"procMount": func(p *corev1.Pod) { p.Spec.Containers[0].SecurityContext.ProcMount = ptr.To(corev1.UnmaskedProcMount) },
		"hostPort":  func(p *corev1.Pod) { p.Spec.Containers[0].Ports[0].HostPort = 80 },
		"device": func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{"cpu": resource.MustParse("1"), "nvidia.com/gpu": resource.MustParse("1")}
		},
		"device, asked for": func(p *corev1.Pod) {
			p.Spec.InitContainers[0].Resources.Requests = corev1.ResourceList{"example.com/fpga": resource.MustParse("1")}
		},
		"huge pages": func(p *corev1.Pod) {
			p.Spec.Resources = &corev1.ResourceRequirements{Limits: corev1.ResourceList{"hugepages-2Mi": resource.MustParse("2Mi")}}
		},
		"nodeName":       func(p *corev1.Pod) { p.Spec.NodeName = "n1" },
		"priority":       func(p *corev1.Pod) { p.Spec.PriorityClassName = "system-node-critical" },
		"foreign label":  func(p *corev1.Pod) { p.Labels["app"] = "web" },
		"key below":      func(p *corev1.Pod) { p.Labels["pcns.sublet.dev/tenant"] = "other" },
		"key below ours": func(p *corev1.Pod) { p.Annotations["pcsa.sublet.dev/tenant"] = "other" },
		"unknown key":    func(p *corev1.Pod) { p.Labels["sublet.dev/x"] = "" },
		"key not hashed": func(p *corev1.Pod) { p.Labels["label.sublet.dev/app"] = "web" },
		"hash too long":  func(p *corev1.Pod) { p.Labels[tenant.HostLabel("app")+"0"] = "web" },
		"field, no hash": func(p *corev1.Pod) { p.Annotations[tenant.AnnotationField+"x"] = "" },
		"zone annotated": func(p *corev1.Pod) { p.Annotations[corev1.LabelTopologyZone] = "z" },
		"foreign key":    func(p *corev1.Pod) { p.Annotations["cni.projectcalico.org/ipAddrs"] = "x" },
		"another's mark": func(p *corev1.Pod) { p.Labels[tenant.LabelTenant] = "other" },
		"no labels":      func(p *corev1.Pod) { p.Labels = nil },
	} {
		for _, s := range tenant.Sandboxes() {
			tn := acme(s)
			pod := syncedPod(tn)
			change(pod)
			if msg := compile(t, baseline.Namespace(tn)).broken(pod, admission.Create); msg == "" {
				t.Errorf("%s: %s is allowed", s, name)
			}
		}
	}
	tn := acme(tenant.RuncUserNS)
	pod := syncedPod(tn)
	pod.Spec.HostUsers = nil
	if compile(t, baseline.Namespace(tn)).broken(pod, admission.Create) == "" {
		t.Error("a pod in the host's user namespace is allowed")
	}
}

func TestAdmissionRefusesServices(t *testing.T) {
	b := compile(t, baseline.Namespace(acme(tenant.GVisor)))
	for name, spec := range map[string]corev1.ServiceSpec{
		"external addresses": {Type: corev1.ServiceTypeClusterIP, ExternalIPs: []string{"8.8.8.8"}},
		"balancer's address": {Type: corev1.ServiceTypeLoadBalancer, LoadBalancerIP: "8.8.8.8"}, //nolint:staticcheck // still honoured by load balancers
		"balancer's class":   {Type: corev1.ServiceTypeLoadBalancer, LoadBalancerClass: ptr.To("example.com/other")},
		"external name":      {Type: corev1.ServiceTypeExternalName, ExternalName: "x"},
		"selector":           {Type: corev1.ServiceTypeClusterIP, Selector: map[string]string{"a": "b"}},
	} {
		if b.broken(&corev1.Service{Spec: spec}, admission.Create) == "" {
			t.Errorf("%s: allowed", name)
		}
	}
}

// What configures load balancers is the plan's: classes, and annotations of tenants'
// identities. What the host's controllers write on a Service stays there.
func TestAdmissionOfLoadBalancers(t *testing.T) {
	tn := acme(tenant.GVisor)
	plan := v1alpha1.PlanSpec{LoadBalancers: v1alpha1.LoadBalancerTerms{Count: 1, Classes: []string{"example.com/public", "example.com/inside"},
		Annotations: map[string]string{"example.com/zone": "a=b", "example.com/logs": ""}}}
	b := compile(t, baseline.Tenant(tn, "cell-0", plan)[0].(*corev1.Namespace))
	service := func(class string, annotations map[string]string) *corev1.Service {
		s := &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer}}
		if s.Annotations = annotations; class != "" {
			s.Spec.LoadBalancerClass = &class
		}
		return s
	}
	writer := &user.DefaultInfo{Name: tenant.WriteUser(tn.HostNamespace)}
	public, forced := "example.com/public", map[string]string{"example.com/zone": "a=b", tenant.AnnotationName: "web"}
	cloud := map[string]string{"cloud.example/id": "7"}
	for name, c := range map[string]struct {
		is, was *corev1.Service
		by      user.Info
		allowed bool
	}{
		"the first class":         {service(public, forced), nil, writer, true},
		"the second":              {service("example.com/inside", nil), nil, writer, true},
		"no class":                {service("", nil), nil, writer, false},
		"another class":           {service("example.com/other", nil), nil, writer, false},
		"another class, before":   {service("example.com/other", nil), service("example.com/other", nil), writer, true},
		"another value":           {service(public, map[string]string{"example.com/zone": "a"}), nil, writer, false},
		"another key":             {service(public, cloud), nil, writer, false},
		"the host's key":          {service(public, cloud), nil, &user.DefaultInfo{Name: "system:cloud-controller-manager"}, true},
		"the host's key stays":    {service(public, cloud), service(public, cloud), writer, true},
		"the host's key, changed": {service(public, map[string]string{"cloud.example/id": "8"}), service(public, cloud), writer, false},
		"two lines in one":        {service(public, map[string]string{"example.com/logs": "\nexample.com/zone=a"}), nil, writer, false},
	} {
		operation := admission.Create
		if c.was != nil {
			operation = admission.Update
		}
		if msg := b.judge(c.is, c.was, c.by, operation); (msg == "") != c.allowed {
			t.Errorf("%s: allowed=%v: %s", name, !c.allowed, msg)
		}
	}
}

// What taints pods tolerate is the plan's, beside those that tell of their node's health.
func TestAdmissionOfTolerations(t *testing.T) {
	tn := acme(tenant.GVisor)
	plan := v1alpha1.PlanSpec{Tolerations: []v1alpha1.TaintPattern{
		{Key: "a/any"}, {Key: "effect", Effect: corev1.TaintEffectNoSchedule}, {Key: "value", Value: ptr.To("v")},
		{Key: "both", Value: ptr.To(""), Effect: corev1.TaintEffectNoExecute},
	}}
	with, without := compile(t, baseline.Tenant(tn, "cell-0", plan)[0].(*corev1.Namespace)), compile(t, baseline.Tenant(tn, "cell-0", v1alpha1.PlanSpec{})[0].(*corev1.Namespace))
	equal, exists := corev1.TolerationOpEqual, corev1.TolerationOpExists
	for _, c := range []struct {
		corev1.Toleration
		with, without bool
	}{
		{corev1.Toleration{Key: corev1.TaintNodeNotReady, Operator: exists, Effect: "NoExecute", TolerationSeconds: ptr.To[int64](300)}, true, true},
		{corev1.Toleration{Key: corev1.TaintNodeMemoryPressure, Operator: exists, Effect: "NoSchedule"}, true, true},
		{corev1.Toleration{Key: corev1.TaintNodeNotReady, Operator: exists}, false, false},
		{corev1.Toleration{Operator: exists}, false, false},
		{corev1.Toleration{Operator: exists, Effect: "NoExecute"}, false, false},
		{corev1.Toleration{Key: "other", Operator: exists}, false, false},
		{corev1.Toleration{Key: "a/any", Operator: exists}, true, false},
		{corev1.Toleration{Key: "a/any", Operator: equal, Value: "x", Effect: "NoExecute"}, true, false},
		{corev1.Toleration{Key: "effect", Operator: exists}, false, false},
		{corev1.Toleration{Key: "effect", Operator: exists, Effect: "NoSchedule"}, true, false},
		{corev1.Toleration{Key: "effect", Operator: equal, Value: "x", Effect: "NoSchedule"}, true, false},
		{corev1.Toleration{Key: "effect", Operator: exists, Effect: "NoExecute"}, false, false},
		{corev1.Toleration{Key: "value", Operator: exists}, false, false},
		{corev1.Toleration{Key: "value", Operator: "Gt", Value: "v"}, false, false},
		{corev1.Toleration{Key: "value", Operator: equal, Value: "v"}, true, false},
		{corev1.Toleration{Key: "value", Value: "v", Effect: "NoSchedule"}, true, false},
		{corev1.Toleration{Key: "value", Operator: equal, Value: "*"}, false, false},
		{corev1.Toleration{Key: "both", Operator: equal, Effect: "NoExecute"}, true, false},
		{corev1.Toleration{Key: "both", Operator: equal}, false, false},
	} {
		pod := syncedPod(tn)
		pod.Spec.Tolerations = []corev1.Toleration{c.Toleration}
		if got := with.broken(pod, admission.Create) == ""; got != c.with {
			t.Errorf("%+v, in the plan: allowed %v", c.Toleration, got)
		}
		if got := without.broken(pod, admission.Create) == ""; got != c.without {
			t.Errorf("%+v: allowed %v", c.Toleration, got)
		}
	}
}

// Images come from the plan's registries, or were there before, as isolation/policy says.
func TestAdmissionOfImages(t *testing.T) {
	tn := acme(tenant.GVisor)
	anywhere := compile(t, baseline.Tenant(tn, "cell-0", v1alpha1.PlanSpec{})[0].(*corev1.Namespace))
	b := compile(t, baseline.Tenant(tn, "cell-0", v1alpha1.PlanSpec{ImageRegistries: policytest.ImageRegistries})[0].(*corev1.Namespace))
	kinds := []func(*corev1.PodSpec, string){
		func(s *corev1.PodSpec, image string) { s.Containers[0].Image = image },
		func(s *corev1.PodSpec, image string) { s.InitContainers[0].Image = image },
		func(s *corev1.PodSpec, image string) {
			s.Volumes[0].VolumeSource = corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: image}}
		},
		func(s *corev1.PodSpec, image string) { s.EphemeralContainers[0].Image = image },
	}
	for image, allowed := range policytest.Images {
		for i, put := range kinds {
			was, pod := syncedPod(tn), syncedPod(tn)
			put(&pod.Spec, image)
			if msg := anywhere.broken(pod, admission.Create); msg != "" {
				t.Errorf("%d %s, from anywhere: %s", i, image, msg)
			}
			if msg := b.broken(pod, admission.Create); (msg == "") != allowed {
				t.Errorf("%d %s: %q", i, image, msg)
			}
			if msg := b.judge(pod, was, &user.DefaultInfo{Name: "somebody"}, admission.Update); (msg == "") != allowed {
				t.Errorf("%d %s comes: %q", i, image, msg)
			}
			if msg := b.broken(pod, admission.Update); msg != "" {
				t.Errorf("%d %s stays: %q", i, image, msg)
			}
		}
	}
}

// Pods have a PriorityClass of the plan or none; one that is taken out of it stays with the
// pods that have it. No plan gives what nodes and the host cannot do without.
func TestAdmissionOfPriorities(t *testing.T) {
	tn := acme(tenant.GVisor)
	none := compile(t, baseline.Tenant(tn, "cell-0", v1alpha1.PlanSpec{})[0].(*corev1.Namespace))
	b := compile(t, baseline.Tenant(tn, "cell-0", v1alpha1.PlanSpec{PriorityClasses: []string{"gold", "calm", "system-node-critical"}})[0].(*corev1.Namespace))
	for class, allowed := range map[string]bool{"": true, "gold": true, "calm": true, "gold,calm": false, "gol": false, "bronze": false, "system-node-critical": false, "system-cluster-critical": false} {
		was, pod := syncedPod(tn), syncedPod(tn)
		pod.Spec.PriorityClassName = class
		if msg := b.broken(pod, admission.Create); (msg == "") != allowed {
			t.Errorf("%q: %q", class, msg)
		}
		if msg := none.broken(pod, admission.Create); (msg == "") != (class == "") {
			t.Errorf("%q, of a plan without any: %q", class, msg)
		}
		if msg := none.judge(pod, was, &user.DefaultInfo{Name: "somebody"}, admission.Update); (msg == "") != (class == "") {
			t.Errorf("%q comes: %q", class, msg)
		}
		if msg := none.broken(pod, admission.Update); (msg == "") != (allowed || class == "bronze" || class == "gol" || class == "gold,calm") {
			t.Errorf("%q stays: %q", class, msg)
		}
	}
}

// Inline volumes are those of the plan's drivers.
func TestAdmissionOfInlineVolumes(t *testing.T) {
	tn := acme(tenant.GVisor)
	b := compile(t, baseline.Tenant(tn, "cell-0", v1alpha1.PlanSpec{CSIDrivers: []string{"good.csi"}})[0].(*corev1.Namespace))
	for driver, allowed := range map[string]bool{"good.csi": true, "other.csi": false, "": false} {
		pod := syncedPod(tn)
		pod.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: driver}}
		if msg := b.broken(pod, admission.Create); (msg == "") != allowed {
			t.Errorf("%q: %s", driver, msg)
		}
	}
}
