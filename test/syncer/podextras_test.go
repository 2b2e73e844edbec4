package syncer

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"sublet.dev/isolation/tenant"
)

func TestTokensAreReplacedInTime(t *testing.T) {
	ns := namespace(t)
	own := create(t, simplePod(ns, "web"))
	hostPod := waitHostPod(t, ns, "web", own.UID)
	name := hostName(ns, "web:tokens")
	secret := func() map[string][]byte {
		s, err := w.host.CoreV1().Secrets(acme.HostNamespace).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		tokens := map[string][]byte{}
		for k, v := range s.Data {
			if !strings.Contains(k, ".") {
				tokens[k] = v
			}
		}
		return tokens
	}
	before := secret()
	if len(before) != 1 {
		t.Fatalf("%d tokens", len(before))
	}
	if data, _ := json.Marshal(hostPod.Annotations); strings.Contains(string(data), "eyJ") {
		t.Error("a token stands in an annotation")
	}
	w.clock.forward(50 * time.Minute)
	wait(t, "another token", func() (bool, any) {
		for k, v := range secret() {
			return string(before[k]) != string(v), nil
		}
		return false, nil
	})
	dropPod(t, own, hostPod)
	wait(t, "end of the tokens", func() (bool, any) {
		_, err := w.host.CoreV1().Secrets(acme.HostNamespace).Get(t.Context(), name, metav1.GetOptions{})
		return apierrors.IsNotFound(err), err
	})
}

func TestEventsComeUp(t *testing.T) {
	ns := namespace(t)
	own := create(t, simplePod(ns, "web"))
	hostPod := waitHostPod(t, ns, "web", own.UID)
	_, err := w.host.CoreV1().Events(acme.HostNamespace).Create(t.Context(), &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Name: hostPod.Name + ".17c9a3b1d2e4f506"},
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: hostPod.Namespace, Name: hostPod.Name, UID: hostPod.UID, APIVersion: "v1"},
		Reason:         "Failed", Type: corev1.EventTypeWarning, Message: "pod " + hostPod.Name + " failed on " + hostNode,
		Source: corev1.EventSource{Component: "kubelet", Host: hostNode}, Count: 1,
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	wait(t, "event", func() (bool, any) {
		e, err := w.tenant.CoreV1().Events(ns).Get(t.Context(), "web.17c9a3b1d2e4f506", metav1.GetOptions{})
		return err == nil && e.Message == "pod web failed on "+acme.ID.NodeName(hostNode) && e.InvolvedObject.UID == own.UID, e
	})
	w.restart() // it must know again what was told, and that this is more
	patch := []byte(`{"count":2}`)
	if _, err := w.host.CoreV1().Events(acme.HostNamespace).Patch(t.Context(), hostPod.Name+".17c9a3b1d2e4f506", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	wait(t, "the event's repetition", func() (bool, any) {
		e, err := w.tenant.CoreV1().Events(ns).Get(t.Context(), "web.17c9a3b1d2e4f506", metav1.GetOptions{})
		return err == nil && e.Count == 2, e
	})
	wait(t, "the scheduler's event", func() (bool, any) {
		events, err := w.tenant.CoreV1().Events(ns).List(t.Context(), metav1.ListOptions{})
		return err == nil && slices.ContainsFunc(events.Items, func(e corev1.Event) bool { return e.Reason == "Scheduled" }), events
	})
}

// TestHostQuotaIsToldAndRetried: the host takes no pod for a while.
func TestHostQuotaIsToldAndRetried(t *testing.T) {
	ns := namespace(t)
	quotas := w.host.CoreV1().ResourceQuotas(acme.HostNamespace)
	limit := func(pods string) {
		patch := []byte(`{"spec":{"hard":{"pods":"` + pods + `"}}}`)
		if _, err := quotas.Patch(t.Context(), "sublet", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	limit("0")
	defer limit("250")
	own := create(t, simplePod(ns, "web"))
	p := waitTenantPod(t, ns, "web", "held", func(p *corev1.Pod) bool {
		return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodScheduled && c.Reason == "HostRefused" && strings.Contains(c.Message, `"web" is forbidden: exceeded quota`)
		})
	})
	if data, _ := json.Marshal(p); strings.Contains(string(data), hostName(ns, "web")) {
		t.Error("the tenant sees the host's name")
	}
	limit("250")
	waitHostPod(t, ns, "web", own.UID)
}

// TestGatedPodWaits: scheduling gates are the tenant's affair.
func TestGatedPodWaits(t *testing.T) {
	ns := namespace(t)
	own := simplePod(ns, "gated")
	own.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/wait"}}
	own = create(t, own)
	other := create(t, simplePod(ns, "other"))
	waitHostPod(t, ns, "other", other.UID)
	if _, err := w.host.CoreV1().Pods(acme.HostNamespace).Get(t.Context(), hostName(ns, "gated"), metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("a gated pod is on the host: %v", err)
	}
	if _, err := w.tenant.CoreV1().Pods(ns).Patch(t.Context(), "gated", types.MergePatchType, []byte(`{"spec":{"schedulingGates":null}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	waitHostPod(t, ns, "gated", own.UID)
}

// TestManyPodsGetTheirTurns: a tenant's pods wait for one another at the host's
// scheduler, but not for those that it can find no place for, nor for refused ones.
func TestManyPodsGetTheirTurns(t *testing.T) {
	ns := namespace(t)
	for i := range 12 {
		nowhere, refused := simplePod(ns, fmt.Sprintf("nowhere-%d", i)), simplePod(ns, fmt.Sprintf("refused-%d", i))
		nowhere.Spec.NodeSelector = map[string]string{"there": "none"}
		refused.Spec.HostNetwork = true
		create(t, nowhere)
		create(t, refused)
	}
	var pods []*corev1.Pod
	for i := range 30 {
		pods = append(pods, create(t, simplePod(ns, fmt.Sprintf("pod-%d", i))))
	}
	for _, own := range pods {
		waitHostPod(t, ns, own.Name, own.UID)
	}
	none := int64(0)
	if err := w.tenant.CoreV1().Pods(ns).DeleteCollection(t.Context(), metav1.DeleteOptions{GracePeriodSeconds: &none}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	wait(t, "end of the host pods", func() (bool, any) {
		list, err := w.host.CoreV1().Pods(acme.HostNamespace).List(t.Context(), metav1.ListOptions{LabelSelector: tenant.LabelNamespace + "=" + tenant.NamespaceValue(ns)})
		if err != nil {
			return false, err
		}
		for i := range list.Items {
			if list.Items[i].DeletionTimestamp != nil {
				remove(t, &list.Items[i])
			}
		}
		return len(list.Items) == 0, len(list.Items)
	})
}
