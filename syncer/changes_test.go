package syncer

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/hostcache"
)

// TestOnlyStatus: what the Pod pass looks at is never taken for a change of status.
func TestOnlyStatus(t *testing.T) {
	pod := func(change func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{UID: "1", Labels: map[string]string{"a": "b"}, ResourceVersion: "1"},
			Spec: corev1.PodSpec{
				Containers:   []corev1.Container{{Name: "c", Image: "i", Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{"cpu": apiresource.MustParse("1"), "memory": apiresource.MustParse("1Gi")}}}},
				NodeSelector: map[string]string{"a": "1", "b": "2", "c": "3", "d": "4", "e": "5"},
			},
			Status: corev1.PodStatus{Phase: corev1.PodPending},
		}
		change(p)
		return p
	}
	before := pod(func(*corev1.Pod) {})
	for name, change := range map[string]func(*corev1.Pod){
		"phase":     func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning },
		"address":   func(p *corev1.Pod) { p.Status.PodIP, p.ResourceVersion = "10.0.0.1", "2" },
		"nothing":   func(p *corev1.Pod) { p.Spec.Tolerations = []corev1.Toleration{} },
		"finalizer": func(p *corev1.Pod) { p.Finalizers = []string{"x/y"} },
	} {
		if !onlyStatus(before, pod(change)) {
			t.Errorf("%s: it is more than the status", name)
		}
	}
	for name, change := range map[string]func(*corev1.Pod){
		"another pod": func(p *corev1.Pod) { p.UID = "2" },
		"ended":       func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded },
		"deleted":     func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} },
		"grace":       func(p *corev1.Pod) { p.DeletionGracePeriodSeconds = ptr.To[int64](1) },
		"label":       func(p *corev1.Pod) { p.Labels = map[string]string{"a": "c"} },
		"annotation":  func(p *corev1.Pod) { p.Annotations = map[string]string{"a": "c"} },
		"image":       func(p *corev1.Pod) { p.Spec.Containers[0].Image = "j" },
		"selector":    func(p *corev1.Pod) { p.Spec.NodeSelector["e"] = "6" },
		"limit":       func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Limits["cpu"] = apiresource.MustParse("2") },
		"node":        func(p *corev1.Pod) { p.Spec.NodeName = "n" },
		"debugger":    func(p *corev1.Pod) { p.Spec.EphemeralContainers = make([]corev1.EphemeralContainer, 1) },
	} {
		if onlyStatus(before, pod(change)) {
			t.Errorf("%s: it is not the status", name)
		}
	}
}

// TestOnlyPlaced: a pod that gets its node is told from one that changes otherwise.
func TestOnlyPlaced(t *testing.T) {
	before := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "1"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	for name, c := range map[string]struct {
		change func(*corev1.Pod)
		placed bool
	}{
		"placed":             {func(p *corev1.Pod) { p.Spec.NodeName = "n" }, true},
		"placed, and status": {func(p *corev1.Pod) { p.Spec.NodeName, p.Status.Phase = "n", corev1.PodRunning }, true},
		"status":             {func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning }, false},
		"placed, and label":  {func(p *corev1.Pod) { p.Spec.NodeName, p.Labels = "n", map[string]string{"a": "b"} }, false},
		"placed, and image":  {func(p *corev1.Pod) { p.Spec.NodeName, p.Spec.Containers[0].Image = "n", "j" }, false},
		"placed, and ended":  {func(p *corev1.Pod) { p.Spec.NodeName, p.Status.Phase = "n", corev1.PodFailed }, false},
		"another pod":        {func(p *corev1.Pod) { p.Spec.NodeName, p.UID = "n", "2" }, false},
	} {
		now := before.DeepCopy()
		c.change(now)
		if got := onlyPlaced(before, now); got != c.placed {
			t.Errorf("%s: only placed %v", name, got)
		}
		if before.Spec.NodeName != "" {
			t.Fatalf("%s: the pod was changed", name)
		}
		now.Spec.NodeName = "m"
		if elsewhere := now.DeepCopy(); onlyPlaced(now, elsewhere) {
			t.Errorf("%s: it was placed before", name)
		}
	}
}

// TestChangedHostPodCalls: of a host pod that got its node nothing is compared anew, and
// whoever stands in the line is called, whoever it is: nobody else brings its turn back.
func TestChangedHostPodCalls(t *testing.T) {
	acme := tenant.Tenant{ID: self, HostNamespace: "a"}
	view := hostcache.New().Space(acme.HostNamespace).Guest(hostcache.Kind{Resource: "pods", Example: &corev1.Pod{}})
	if err := view.AddIndexers(cache.Indexers{byScheduling: index(scheduling)}); err != nil {
		t.Fatal(err)
	}
	s := &Syncer{
		config: Config{Tenant: acme, Host: &Host{budget: engine.NewBudget(0)}},
		caches: &caches{host: hostSide{pods: view}}, crowd: newCrowd(),
	}
	name := tenant.Name{Namespace: "shop", Name: "web"}
	labels, annotations := tenant.Owner{Tenant: self, Name: name, UID: "1"}.Marks()
	before := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: string(self.HostName(name)), UID: "2", Labels: labels, Annotations: annotations}}
	now := before.DeepCopy()
	now.Spec.NodeName = "n"
	has := func(all []engine.Key, kind string) bool {
		return slices.Contains(all, engine.Key{Kind: kind, Name: name})
	}
	ofNode := engine.Key{Kind: kindNode, Name: s.view("n")}
	if all := s.changedHostPod(before, now); has(all, kindPod) || !has(all, kindPodStatus) || !slices.Contains(all, ofNode) {
		t.Errorf("it got its node, and nobody stands in line: %v", all)
	}
	runs := now.DeepCopy()
	runs.Status.Phase = corev1.PodRunning
	if all := s.changedHostPod(now, runs); has(all, kindPod) || !has(all, kindPodStatus) || slices.Contains(all, ofNode) {
		t.Errorf("it runs, on the node on which it was: %v", all)
	}
	relabelled := runs.DeepCopy()
	relabelled.Labels["a"] = "b"
	if all := s.changedHostPod(runs, relabelled); !has(all, kindPod) {
		t.Errorf("somebody changed it: %v", all)
	}
	s.crowd.admit(name, 0, func() int { return 1 })
	s.crowd.end(name, true)
	if all := s.cameOrWentOnHost(before); !has(all, kindPod) || len(s.crowd.goes) != 0 {
		t.Errorf("it came: %v, and is on its way still: %+v", all, s.crowd.goes)
	}
	if may, _ := s.crowd.admit(name, 0, func() int { return 0 }); may {
		t.Fatal("there is no room")
	}
	if all := s.changedHostPod(before, now); !has(all, kindPod) {
		t.Errorf("it stands in line, and is not called: %v", all)
	}
}

// BenchmarkOnlyStatus is what it takes to see that nothing but a pod's status changed.
func BenchmarkOnlyStatus(b *testing.B) {
	no := false
	before := &corev1.Pod{Spec: corev1.PodSpec{
		Containers: []corev1.Container{{Name: "c", Image: "i", VolumeMounts: []corev1.VolumeMount{{Name: "token", MountPath: "/var/run/secrets", ReadOnly: true}}}},
		Volumes: []corev1.Volume{{Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}}, {ConfigMap: &corev1.ConfigMapProjection{}}, {DownwardAPI: &corev1.DownwardAPIProjection{}},
		}}}}},
		Tolerations:        []corev1.Toleration{{Key: "a", Operator: corev1.TolerationOpExists}, {Key: "b", Operator: corev1.TolerationOpExists}},
		RestartPolicy:      corev1.RestartPolicyAlways,
		EnableServiceLinks: &no,
		SecurityContext:    &corev1.PodSecurityContext{},
	}}
	now := before.DeepCopy()
	for b.Loop() {
		if !onlyStatus(before, now) {
			b.Fatal("they are the same")
		}
	}
}
