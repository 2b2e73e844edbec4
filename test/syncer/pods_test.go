package syncer

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"sublet.dev/isolation/tenant"
)

func hostName(namespace, name string) string {
	return string(acme.ID.HostName(tenant.Name{Namespace: namespace, Name: name}))
}

// simplePod is a pod that every tenant could write.
func simplePod(namespace, name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": name}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app:1", ImagePullPolicy: corev1.PullNever}}},
	}
}

func create(t *testing.T, tenantPod *corev1.Pod) *corev1.Pod {
	t.Helper()
	created, err := w.tenant.CoreV1().Pods(tenantPod.Namespace).Create(t.Context(), tenantPod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return created
}

func tenantPod(t *testing.T, namespace, name string) (*corev1.Pod, error) {
	return w.tenant.CoreV1().Pods(namespace).Get(t.Context(), name, metav1.GetOptions{})
}

// waitTenantPod waits until the tenant's pod is as asked.
func waitTenantPod(t *testing.T, namespace, name, what string, is func(*corev1.Pod) bool) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	wait(t, "tenant pod "+what, func() (ok bool, last any) {
		var err error
		if pod, err = tenantPod(t, namespace, name); err != nil {
			return false, err
		}
		return is(pod), pod.Status
	})
	return pod
}

// waitHostPod waits for the host pod of a tenant's pod, on a node.
func waitHostPod(t *testing.T, namespace, name string, uid types.UID) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	wait(t, "host pod on a node", func() (ok bool, last any) {
		var err error
		if pod, err = w.host.CoreV1().Pods(acme.HostNamespace).Get(t.Context(), hostName(namespace, name), metav1.GetOptions{}); err != nil {
			return false, err
		}
		return pod.Spec.NodeName != "" && pod.Annotations[tenant.AnnotationUID] == string(uid), pod
	})
	return pod
}

// setRunning says what a kubelet would say of a host pod with an address, or with one of
// each family.
func setRunning(t *testing.T, hostPod *corev1.Pod, ips ...string) {
	t.Helper()
	now := metav1.Now()
	var podIPs []corev1.PodIP
	for _, ip := range ips {
		podIPs = append(podIPs, corev1.PodIP{IP: ip})
	}
	wait(t, "status of the host pod", func() (bool, any) {
		p, err := w.host.CoreV1().Pods(hostPod.Namespace).Get(t.Context(), hostPod.Name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		p.Status = corev1.PodStatus{
			Phase: corev1.PodRunning, HostIP: hostNodeIP, HostIPs: []corev1.HostIP{{IP: hostNodeIP}}, PodIP: ips[0], PodIPs: podIPs,
			QOSClass: p.Status.QOSClass, StartTime: &now, ObservedGeneration: p.Generation,
			Conditions: []corev1.PodCondition{
				{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}, {Type: corev1.PodInitialized, Status: corev1.ConditionTrue},
				{Type: corev1.ContainersReady, Status: corev1.ConditionTrue}, {Type: corev1.PodReady, Status: corev1.ConditionTrue},
			},
			ContainerStatuses: []corev1.ContainerStatus{{
				Name: "app", Image: "app:1", ImageID: "sha256:1", ContainerID: "containerd://1", Ready: true,
				State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
			}},
		}
		_, err = w.host.CoreV1().Pods(hostPod.Namespace).UpdateStatus(t.Context(), p, metav1.UpdateOptions{})
		return err == nil, err
	})
}

// remove is what a kubelet does when the containers of a deleted pod are dead.
func remove(t *testing.T, hostPod *corev1.Pod) {
	t.Helper()
	none := int64(0)
	err := w.host.CoreV1().Pods(hostPod.Namespace).Delete(t.Context(), hostPod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &none, Preconditions: &metav1.Preconditions{UID: &hostPod.UID},
	})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
}

func TestPodGoesDownAndItsStatusUp(t *testing.T) {
	ns := namespace(t)
	own := simplePod(ns, "web")
	own.Annotations = map[string]string{"io.katacontainers.config.hypervisor.path": "/bin/sh"}
	own = create(t, own)
	hostPod := waitHostPod(t, ns, "web", own.UID)
	for _, keys := range []map[string]string{hostPod.Labels, hostPod.Annotations} {
		for k := range keys {
			if prefix, _, _ := strings.Cut(k, "/"); !strings.HasSuffix(prefix, tenant.Domain) {
				t.Errorf("foreign key %q on the host", k)
			}
		}
	}
	if c := hostPod.Spec.RuntimeClassName; c == nil || *c != acme.Sandbox.RuntimeClass() {
		t.Errorf("runtime class %v", c)
	}
	view := acme.ID.NodeName(hostNode)
	waitTenantPod(t, ns, "web", "bound", func(p *corev1.Pod) bool { return p.Spec.NodeName == view })
	setRunning(t, hostPod, "10.244.0.5")
	running := func(p *corev1.Pod) bool {
		return p.Status.Phase == corev1.PodRunning && p.Status.PodIP == "10.244.0.5" && p.Status.ContainerStatuses[0].Ready
	}
	p := waitTenantPod(t, ns, "web", "running", running)
	if p.Status.HostIP == hostNodeIP || p.Status.HostIP == "" {
		t.Errorf("host IP %q", p.Status.HostIP)
	}
	data, _ := json.Marshal(p)
	for _, secret := range []string{hostNode, hostPod.Name, acme.HostNamespace, hostNodeIP} {
		if strings.Contains(string(data), secret) {
			t.Errorf("the tenant sees %q", secret)
		}
	}

	t.Run("a forged status is restored", func(t *testing.T) {
		wait(t, "forged", func() (bool, any) {
			p, err := tenantPod(t, ns, "web")
			if err != nil {
				return false, err
			}
			p.Status.PodIP, p.Status.PodIPs = "169.254.169.254", []corev1.PodIP{{IP: "169.254.169.254"}}
			_, err = w.tenant.CoreV1().Pods(ns).UpdateStatus(t.Context(), p, metav1.UpdateOptions{})
			return err == nil, err
		})
		waitTenantPod(t, ns, "web", "restored", running)
	})

	t.Run("labels follow", func(t *testing.T) {
		patch := []byte(`{"metadata":{"labels":{"color":"red"}}}`)
		if _, err := w.tenant.CoreV1().Pods(ns).Patch(t.Context(), "web", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		wait(t, "label", func() (bool, any) {
			p, err := w.host.CoreV1().Pods(hostPod.Namespace).Get(t.Context(), hostPod.Name, metav1.GetOptions{})
			return err == nil && p.Labels[tenant.HostLabel("color")] == "red", err
		})
	})

	t.Run("an ephemeral container follows", func(t *testing.T) {
		wait(t, "ephemeral container", func() (bool, any) {
			p, err := tenantPod(t, ns, "web")
			if err != nil {
				return false, err
			}
			p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "debug:1"}}}
			_, err = w.tenant.CoreV1().Pods(ns).UpdateEphemeralContainers(t.Context(), "web", p, metav1.UpdateOptions{})
			return err == nil, err
		})
		wait(t, "ephemeral container on the host", func() (bool, any) {
			p, err := w.host.CoreV1().Pods(hostPod.Namespace).Get(t.Context(), hostPod.Name, metav1.GetOptions{})
			return err == nil && len(p.Spec.EphemeralContainers) == 1, err
		})
	})

	t.Run("deletion waits for the containers", func(t *testing.T) {
		grace := int64(17)
		if err := w.tenant.CoreV1().Pods(ns).Delete(t.Context(), "web", metav1.DeleteOptions{GracePeriodSeconds: &grace}); err != nil {
			t.Fatal(err)
		}
		wait(t, "deletion on the host", func() (bool, any) {
			p, err := w.host.CoreV1().Pods(hostPod.Namespace).Get(t.Context(), hostPod.Name, metav1.GetOptions{})
			return err == nil && p.DeletionTimestamp != nil && *p.DeletionGracePeriodSeconds == grace, err
		})
		if _, err := tenantPod(t, ns, "web"); err != nil {
			t.Fatalf("the tenant's pod went before its containers: %v", err)
		}
		remove(t, hostPod)
		wait(t, "end of the tenant's pod", func() (bool, any) {
			_, err := tenantPod(t, ns, "web")
			return apierrors.IsNotFound(err), err
		})
	})
}

func TestDownwardNodeName(t *testing.T) {
	ns := namespace(t)
	own := simplePod(ns, "web")
	own.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "NODE", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec.nodeName"}}}}
	own = create(t, own)
	hostPod := waitHostPod(t, ns, "web", own.UID)
	ref := hostPod.Spec.Containers[0].Env[slices.IndexFunc(hostPod.Spec.Containers[0].Env, func(e corev1.EnvVar) bool { return e.Name == "NODE" })].ValueFrom.ConfigMapKeyRef
	wait(t, "node name", func() (bool, any) {
		m, err := w.host.CoreV1().ConfigMaps(acme.HostNamespace).Get(t.Context(), ref.Name, metav1.GetOptions{})
		return err == nil && m.Data[ref.Key] == acme.ID.NodeName(hostNode), err
	})
	dropPod(t, own, hostPod)
	wait(t, "end of the node values", func() (bool, any) {
		_, err := w.host.CoreV1().ConfigMaps(acme.HostNamespace).Get(t.Context(), ref.Name, metav1.GetOptions{})
		return apierrors.IsNotFound(err), err
	})
}

// dropPod deletes a pod on both sides.
func dropPod(t *testing.T, own, hostPod *corev1.Pod) {
	t.Helper()
	none := int64(0)
	err := w.tenant.CoreV1().Pods(own.Namespace).Delete(t.Context(), own.Name, metav1.DeleteOptions{GracePeriodSeconds: &none})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	wait(t, "end of the host pod", func() (bool, any) {
		p, err := w.host.CoreV1().Pods(hostPod.Namespace).Get(t.Context(), hostPod.Name, metav1.GetOptions{})
		if err == nil && p.DeletionTimestamp != nil {
			remove(t, p)
		}
		return apierrors.IsNotFound(err), err
	})
}

func TestLostHostPodFailsItsTenantPod(t *testing.T) {
	ns := namespace(t)
	own := create(t, simplePod(ns, "web"))
	hostPod := waitHostPod(t, ns, "web", own.UID)
	setRunning(t, hostPod, "10.244.0.6")
	waitTenantPod(t, ns, "web", "running", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodRunning })
	remove(t, hostPod)
	p := waitTenantPod(t, ns, "web", "failed", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	if p.Status.Reason != "PodLost" {
		t.Errorf("reason %q", p.Status.Reason)
	}
}

func TestHostPodOfAnOlderPodIsReplaced(t *testing.T) {
	ns := namespace(t)
	first := create(t, simplePod(ns, "web"))
	stale := waitHostPod(t, ns, "web", first.UID)
	waitTenantPod(t, ns, "web", "bound", func(p *corev1.Pod) bool { return p.Spec.NodeName != "" })
	none := int64(0)
	if err := w.tenant.CoreV1().Pods(ns).Delete(t.Context(), "web", metav1.DeleteOptions{GracePeriodSeconds: &none}); err != nil {
		t.Fatal(err)
	}
	second := create(t, simplePod(ns, "web"))
	wait(t, "deletion of the stale pod", func() (bool, any) {
		p, err := w.host.CoreV1().Pods(stale.Namespace).Get(t.Context(), stale.Name, metav1.GetOptions{})
		return err == nil && p.UID == stale.UID && p.DeletionTimestamp != nil && *p.DeletionGracePeriodSeconds <= 1, err
	})
	if p, err := tenantPod(t, ns, "web"); err != nil || p.Spec.NodeName != "" {
		t.Fatalf("the new pod follows the old host pod: %v %v", p, err)
	}
	remove(t, stale)
	fresh := waitHostPod(t, ns, "web", second.UID)
	if fresh.UID == stale.UID {
		t.Fatal("the stale pod was adopted")
	}
}

func TestRefusedPodSaysWhy(t *testing.T) {
	ns := namespace(t)
	own := simplePod(ns, "bad")
	own.Spec.HostNetwork = true
	own = create(t, own)
	p := waitTenantPod(t, ns, "bad", "refused", func(p *corev1.Pod) bool {
		return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == "Refused" && strings.Contains(c.Message, "hostNetwork")
		})
	})
	if p.Spec.NodeName != "" {
		t.Error("a refused pod has a node")
	}
	wait(t, "event", func() (bool, any) {
		events, err := w.tenant.CoreV1().Events(ns).List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(own.UID)})
		return err == nil && slices.ContainsFunc(events.Items, func(e corev1.Event) bool { return e.Reason == "Refused" }), events
	})
	_, err := w.host.CoreV1().Pods(acme.HostNamespace).Get(t.Context(), hostName(ns, "bad"), metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("a refused pod is on the host: %v", err)
	}
}

func TestDaemonSetPodMeetsItsNode(t *testing.T) {
	ns := namespace(t)
	own := simplePod(ns, "daemon")
	own.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{{
			Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{acme.ID.NodeName(hostNode)},
		}}}},
	}}}
	own = create(t, own)
	if p := waitHostPod(t, ns, "daemon", own.UID); p.Spec.NodeName != hostNode {
		t.Errorf("on %q", p.Spec.NodeName)
	}
}

// TestUnschedulablePodSaysWhy: the host node's labels are not the tenant's; once the
// tenant labels the node it sees, the pod that waits for that is placed.
func TestUnschedulablePodSaysWhy(t *testing.T) {
	ns := namespace(t)
	own := simplePod(ns, "picky")
	own.Spec.NodeSelector = map[string]string{"rack": "secret"} // a label that the host node has
	own = create(t, own)
	waitTenantPod(t, ns, "picky", "unschedulable", func(p *corev1.Pod) bool {
		return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonUnschedulable
		})
	})
	label := func(ctx context.Context, rack string) {
		patch := []byte(`{"metadata":{"labels":{"rack":` + rack + `}}}`)
		if _, err := w.tenant.CoreV1().Nodes().Patch(ctx, acme.ID.NodeName(hostNode), types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			t.Error(err)
		}
	}
	label(t.Context(), `"secret"`)
	defer label(context.Background(), "null")
	wait(t, "place of the pod", func() (bool, any) {
		p, err := w.host.CoreV1().Pods(acme.HostNamespace).Get(t.Context(), hostName(ns, "picky"), metav1.GetOptions{})
		return err == nil && p.Spec.NodeName == hostNode && p.Annotations[tenant.AnnotationUID] == string(own.UID), p
	})
}
