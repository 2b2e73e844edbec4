package plan_test

import (
	"reflect"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/baseline"
	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/plan"
)

func ptr[T any](v T) *T { return &v }

func quantity(s string) *resource.Quantity { return ptr(resource.MustParse(s)) }

// defaults are the terms of a plan in which nothing is said.
func defaults() plan.Terms {
	return plan.Terms{
		Plan: "p", IdleAfter: 30 * time.Minute, StoreQuota: 256 << 20, Internet: true, StorageClasses: []string{"local"}, Audit: plan.AuditNone,
		Room: map[corev1.ResourceName]string{"pods": "250"},
		Limits: plan.Limits{Concurrent: 200, Streams: 2000, Objects: 20000, PerResource: 10000, Size: 1 << 20,
			Resources: map[string]plan.Count{"customresourcedefinitions.apiextensions.k8s.io": 200}},
	}
}

// Each field of a plan changes what it is about and nothing else.
func TestFor(t *testing.T) {
	cases := map[string]struct {
		change func(*v1alpha1.PlanSpec)
		want   func(*plan.Terms)
	}{
		"nothing said":    {func(*v1alpha1.PlanSpec) {}, func(*plan.Terms) {}},
		"own cell":        {func(s *v1alpha1.PlanSpec) { s.OwnCell = true }, func(w *plan.Terms) { w.OwnCell = true }},
		"idle":            {func(s *v1alpha1.PlanSpec) { s.IdleAfter = &metav1.Duration{Duration: time.Hour} }, func(w *plan.Terms) { w.IdleAfter = time.Hour }},
		"never asleep":    {func(s *v1alpha1.PlanSpec) { s.IdleAfter = &metav1.Duration{} }, func(w *plan.Terms) { w.IdleAfter = 0 }},
		"store":           {func(s *v1alpha1.PlanSpec) { s.StoreQuota = quantity("1Gi") }, func(w *plan.Terms) { w.StoreQuota = 1 << 30 }},
		"storage":         {func(s *v1alpha1.PlanSpec) { s.StorageClasses = []string{"b", "a"} }, func(w *plan.Terms) { w.StorageClasses = []string{"b", "a"} }},
		"no internet":     {func(s *v1alpha1.PlanSpec) { s.Egress.Internet = ptr(false) }, func(w *plan.Terms) { w.Internet = false }},
		"internet":        {func(s *v1alpha1.PlanSpec) { s.Egress.Internet = ptr(true) }, func(*plan.Terms) {}},
		"public webhooks": {func(s *v1alpha1.PlanSpec) { s.Egress.Webhooks = true }, func(w *plan.Terms) { w.PublicWebhooks = true }},
		"concurrency":     {func(s *v1alpha1.PlanSpec) { s.Requests.Concurrent = 11 }, func(w *plan.Terms) { w.Limits.Concurrent = 11 }},
		"streams":         {func(s *v1alpha1.PlanSpec) { s.Requests.Streams = 12 }, func(w *plan.Terms) { w.Limits.Streams = 12 }},
		"objects":         {func(s *v1alpha1.PlanSpec) { s.Objects.Total = 600 }, func(w *plan.Terms) { w.Limits.Objects = 600 }},
		"per resource":    {func(s *v1alpha1.PlanSpec) { s.Objects.PerResource = 101 }, func(w *plan.Terms) { w.Limits.PerResource = 101 }},
		"size":            {func(s *v1alpha1.PlanSpec) { s.Objects.Size = quantity("64Ki") }, func(w *plan.Terms) { w.Limits.Size = 64 << 10 }},
		"one resource":    {func(s *v1alpha1.PlanSpec) { s.Objects.Resources = map[string]int64{"secrets": 0} }, func(w *plan.Terms) { w.Limits.Resources["secrets"] = 0 }},
		"load balancers": {func(s *v1alpha1.PlanSpec) {
			s.LoadBalancers = v1alpha1.LoadBalancerTerms{Count: 2, Classes: []string{"c"}, Annotations: map[string]string{"k": "v"}}
		}, func(w *plan.Terms) {
			w.LoadBalancers = plan.LoadBalancers{Offered: true, Classes: []string{"c"}, Annotations: map[string]string{"k": "v"}}
		}},
		"drivers":    {func(s *v1alpha1.PlanSpec) { s.CSIDrivers = []string{"a", "b"} }, func(w *plan.Terms) { w.CSIDrivers = []string{"a", "b"} }},
		"registries": {func(s *v1alpha1.PlanSpec) { s.ImageRegistries = []string{"a.b/c"} }, func(w *plan.Terms) { w.ImageRegistries = []string{"a.b/c"} }},
		"priorities": {func(s *v1alpha1.PlanSpec) { s.PriorityClasses = []string{"gold"} }, func(w *plan.Terms) { w.PriorityClasses = []string{"gold"} }},
		"runtime classes": {func(s *v1alpha1.PlanSpec) { s.RuntimeClasses = []v1alpha1.RuntimeClassOffer{{Name: "x"}} },
			func(w *plan.Terms) { w.RuntimeClasses = []v1alpha1.RuntimeClassOffer{{Name: "x"}} }},
		"tolerations": {func(s *v1alpha1.PlanSpec) {
			s.Tolerations = []v1alpha1.TaintPattern{{Key: "k", Value: ptr(""), Effect: corev1.TaintEffectNoSchedule}}
		}, func(w *plan.Terms) {
			w.Tolerations = []policy.Taint{{Key: "k", Value: ptr(""), Effect: corev1.TaintEffectNoSchedule}}
		}},
		"ingress": {func(s *v1alpha1.PlanSpec) {
			s.Ingress = v1alpha1.IngressTerms{Classes: []string{"c"}, Hostnames: []string{"*"}, Annotations: map[string]string{"k": "v"}}
		}, func(w *plan.Terms) {
			w.Ingress = plan.Ingress{Classes: []string{"c"}, Annotations: map[string]string{"k": "v"}}
		}},
		"definitions": {func(s *v1alpha1.PlanSpec) { s.Objects.CustomResourceDefinitions = ptr[int64](0) },
			func(w *plan.Terms) { w.Limits.Resources["customresourcedefinitions.apiextensions.k8s.io"] = 0 }},
		"audit": {func(s *v1alpha1.PlanSpec) { s.Audit = "Request" }, func(w *plan.Terms) { w.Audit = plan.AuditRequest }},
		"custom resources": {func(s *v1alpha1.PlanSpec) {
			s.CustomResources = []v1alpha1.CustomResourceRule{{Resource: "x", Group: "example.org"}}
		},
			func(w *plan.Terms) {
				w.CustomResources = []v1alpha1.CustomResourceRule{{Resource: "x", Group: "example.org"}}
			}},
		"snapshots": {func(s *v1alpha1.PlanSpec) { s.SnapshotClasses = []string{"fast"} },
			func(w *plan.Terms) {
				w.CustomResources = baseline.CustomResources(v1alpha1.PlanSpec{SnapshotClasses: []string{"fast"}})
			}},
		"gateways": {func(s *v1alpha1.PlanSpec) { s.Ingress.GatewayClasses = []string{"g"} },
			func(w *plan.Terms) {
				w.Ingress.GatewayClasses = []string{"g"}
				w.CustomResources = baseline.CustomResources(v1alpha1.PlanSpec{Ingress: v1alpha1.IngressTerms{GatewayClasses: []string{"g"}}})
			}},
		"host resources": {func(s *v1alpha1.PlanSpec) {
			s.HostResources = corev1.ResourceList{"pods": resource.MustParse("1"), "limits.cpu": resource.MustParse("8"), "requests.cpu": resource.MustParse("2"),
				"limits.memory": resource.MustParse("1Gi"), "services": resource.MustParse("3")}
		}, func(w *plan.Terms) {
			w.Room = map[corev1.ResourceName]string{"pods": "1", "cpu": "2", "memory": "1Gi"}
		}},
		// Not for the control plane: baseline.Quota, Lifetime and Sandbox have them.
		"node ports":  {func(s *v1alpha1.PlanSpec) { s.NodePorts = 3 }, func(*plan.Terms) {}},
		"sandboxes":   {func(s *v1alpha1.PlanSpec) { s.Sandboxes = []string{"gvisor"} }, func(*plan.Terms) {}},
		"credentials": {func(s *v1alpha1.PlanSpec) { s.Credentials.Lifetime = &metav1.Duration{Duration: time.Hour} }, func(*plan.Terms) {}},
	}
	for name, c := range cases {
		p := &v1alpha1.Plan{ObjectMeta: metav1.ObjectMeta{Name: "p"}}
		c.change(&p.Spec)
		want := defaults()
		c.want(&want)
		if got := plan.For(p); !got.Equal(want) {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

// A field that is added to plans is noticed here: it needs a meaning, and a case
// above or below.
func TestEveryFieldHasAMeaning(t *testing.T) {
	known := []string{"Sandboxes", "OwnCell", "IdleAfter", "StoreQuota", "HostResources", "StorageClasses", "Tolerations", "CSIDrivers", "RuntimeClasses", "ImageRegistries", "PriorityClasses", "SnapshotClasses", "Objects", "Requests", "Credentials", "Egress", "NodePorts", "LoadBalancers", "Ingress", "CustomResources", "Audit"}
	var fields []string
	for f := range reflect.TypeFor[v1alpha1.PlanSpec]().Fields() {
		fields = append(fields, f.Name)
	}
	if !reflect.DeepEqual(fields, known) {
		t.Errorf("the fields are %q, and %q have a meaning", fields, known)
	}
}

func TestLifetime(t *testing.T) {
	for name, c := range map[string]struct {
		usual, most         *metav1.Duration
		wantUsual, wantMost time.Duration
	}{
		"nothing said":         {nil, nil, 24 * time.Hour, 365 * 24 * time.Hour},
		"both":                 {&metav1.Duration{Duration: time.Hour}, &metav1.Duration{Duration: 2 * time.Hour}, time.Hour, 2 * time.Hour},
		"most below the usual": {nil, &metav1.Duration{Duration: time.Hour}, time.Hour, time.Hour},
	} {
		p := &v1alpha1.Plan{Spec: v1alpha1.PlanSpec{Credentials: v1alpha1.CredentialTerms{Lifetime: c.usual, MaxLifetime: c.most}}}
		if usual, most := plan.Lifetime(p); usual != c.wantUsual || most != c.wantMost {
			t.Errorf("%s: %s and %s", name, usual, most)
		}
	}
}

func TestSandbox(t *testing.T) {
	both, one := &v1alpha1.Plan{}, &v1alpha1.Plan{Spec: v1alpha1.PlanSpec{Sandboxes: []string{"runc-userns"}}}
	for _, c := range []struct {
		plan        *v1alpha1.Plan
		asked, want string
		ok          bool
	}{
		{both, "", "gvisor", true}, {both, "runc-userns", "runc-userns", true},
		{one, "", "runc-userns", true}, {one, "gvisor", "gvisor", false}, {one, "runc-userns", "runc-userns", true},
	} {
		if got, ok := plan.Sandbox(c.plan, c.asked); got != c.want || ok != c.ok {
			t.Errorf("Sandbox(%v, %q) = %q, %v", c.plan.Spec.Sandboxes, c.asked, got, ok)
		}
	}
}

func TestLimitsOf(t *testing.T) {
	l := plan.Limits{PerResource: 7, Resources: map[string]plan.Count{"secrets": 0}}
	if n, ok := l.Of("pods"); n != 7 || !ok {
		t.Errorf("pods: %d, %v", n, ok)
	}
	if n, ok := l.Of("secrets"); n != 0 || !ok {
		t.Errorf("secrets: %d, %v", n, ok)
	}
	if _, ok := (plan.Limits{}).Of("pods"); ok {
		t.Error("the zero value bounds pods")
	}
}

// The built-in plans grow from one to the next, and offer what there is.
func TestBuiltIn(t *testing.T) {
	plans := plan.BuiltIn()
	if len(plans) != 3 || plans[0].Name != v1alpha1.DefaultPlan {
		t.Fatalf("%d plans, the first is %s", len(plans), plans[0].Name)
	}
	for i, p := range plans {
		for _, s := range p.Spec.Sandboxes {
			if err := tenant.Sandbox(s).Validate(); err != nil {
				t.Error(err)
			}
		}
		if i == 0 {
			continue
		}
		a, b := plan.For(plans[i-1]), plan.For(p)
		for _, name := range []corev1.ResourceName{"pods", "services", "configmaps"} {
			x, y := plans[i-1].Spec.HostResources[name], p.Spec.HostResources[name]
			if x.Cmp(y) >= 0 {
				t.Errorf("%s has no more %s than %s", p.Name, name, plans[i-1].Name)
			}
		}
		if a.StoreQuota >= b.StoreQuota || a.Limits.Objects >= b.Limits.Objects || a.Limits.Concurrent >= b.Limits.Concurrent || a.Limits.Streams >= b.Limits.Streams {
			t.Errorf("%s is not larger than %s", p.Name, plans[i-1].Name)
		}
	}
}

// A tenant is offered the RuntimeClasses of its own sandbox.
func TestOffer(t *testing.T) {
	terms := plan.Terms{CSIDrivers: []string{"d"}, ImageRegistries: []string{"r"}, PriorityClasses: []string{"p"}, RuntimeClasses: []v1alpha1.RuntimeClassOffer{{Name: "any"}, {Name: "g", Sandbox: "gvisor"}, {Name: "u", Sandbox: "runc-userns"}}}
	for sandbox, want := range map[tenant.Sandbox][]string{tenant.GVisor: {"any", "g"}, tenant.RuncUserNS: {"any", "u"}} {
		if got := terms.Offer(sandbox); !reflect.DeepEqual(got, policy.Offer{CSIDrivers: []string{"d"}, ImageRegistries: []string{"r"}, PriorityClasses: []string{"p"}, RuntimeClasses: want}) {
			t.Errorf("%s: %+v", sandbox, got)
		}
	}
}
