package syncer

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
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
		s := waitSecret(t, name)
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
	for _, token := range before {
		checkToken(t, string(token), own)
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

// waitSecret waits for a Secret on the host.
func waitSecret(t *testing.T, name string) *corev1.Secret {
	t.Helper()
	var s *corev1.Secret
	wait(t, "secret on the host", func() (bool, any) {
		var err error
		s, err = w.host.CoreV1().Secrets(acme.HostNamespace).Get(t.Context(), name, metav1.GetOptions{})
		return err == nil, err
	})
	return s
}

// checkToken asks the tenant's API whose a token is: the pod's, on the node that the
// tenant sees.
func checkToken(t *testing.T, token string, own *corev1.Pod) {
	t.Helper()
	review, err := w.tenant.AuthenticationV1().TokenReviews().Create(t.Context(), &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
	if err != nil || !review.Status.Authenticated {
		t.Fatalf("the token is nobody's: %v %+v", err, review)
	}
	node, err := w.tenant.CoreV1().Nodes().Get(t.Context(), acme.ID.NodeName(hostNode), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for claim, want := range map[string]string{
		"pod-name": own.Name, "pod-uid": string(own.UID), "node-name": node.Name, "node-uid": string(node.UID),
	} {
		if got := review.Status.User.Extra["authentication.kubernetes.io/"+claim]; len(got) != 1 || got[0] != want {
			t.Errorf("the token says %s is %v, want %s", claim, got, want)
		}
	}
}

// TestTokenWaitsForNode: a pod that has no node has no token, and one that gets a node
// gets one.
func TestTokenWaitsForNode(t *testing.T) {
	ns := namespace(t)
	own := simplePod(ns, "far")
	own.Spec.NodeSelector = map[string]string{corev1.LabelHostname: "elsewhere"}
	create(t, own)
	waitTenantPod(t, ns, "far", "without a node", func(p *corev1.Pod) bool {
		return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable
		})
	})
	other := create(t, simplePod(ns, "near")) // the positive control
	waitHostPod(t, ns, "near", other.UID)
	waitSecret(t, hostName(ns, "near:tokens"))
	if _, err := w.host.CoreV1().Secrets(acme.HostNamespace).Get(t.Context(), hostName(ns, "far:tokens"), metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("a pod without a node has tokens: %v", err)
	}
}

// TestMissingServiceAccountIsTold: the kubelet only knows that a Secret is missing.
func TestMissingServiceAccountIsTold(t *testing.T) {
	ns := namespace(t)
	accounts := w.tenant.CoreV1().ServiceAccounts(ns)
	if _, err := accounts.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	own := simplePod(ns, "web")
	own.Spec.ServiceAccountName = "robot"
	own.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/wait"}}
	own = create(t, own)
	if err := accounts.Delete(t.Context(), "robot", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.tenant.CoreV1().Pods(ns).Patch(t.Context(), "web", types.MergePatchType, []byte(`{"spec":{"schedulingGates":null}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	waitHostPod(t, ns, "web", own.UID)
	waitEvent(t, ns, "web", "FailedMount", `serviceaccounts "robot" not found`)
	if _, err := accounts.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	waitSecret(t, hostName(ns, "web:tokens"))
}

// waitEvent waits for an event about a pod of the tenant's.
func waitEvent(t *testing.T, namespace, pod, reason, message string) {
	t.Helper()
	wait(t, "event "+reason, func() (bool, any) {
		events, err := w.tenant.CoreV1().Events(namespace).List(t.Context(), metav1.ListOptions{})
		return err == nil && slices.ContainsFunc(events.Items, func(e corev1.Event) bool {
			return e.Reason == reason && e.InvolvedObject.Name == pod && strings.Contains(e.Message, message)
		}), events
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
		if _, err := quotas.Patch(t.Context(), "sublet-pods", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	limit("0")
	defer limit("250")
	judged, class, no := simplePod(acme.HostNamespace, hostName(ns, "judged")), acme.Sandbox.RuntimeClass(), false
	judged.Labels, judged.Annotations = tenant.Owner{Tenant: acme.ID, Name: tenant.Name{Namespace: ns, Name: "judged"}, UID: "11111111-1111-1111-1111-111111111111"}.Marks()
	judged.Spec.RuntimeClassName, judged.Spec.AutomountServiceAccountToken = &class, &no
	wait(t, "the host's admission knows it", func() (bool, any) { // by watching the quota
		dry := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
		_, err := w.host.CoreV1().Pods(acme.HostNamespace).Create(t.Context(), judged, dry)
		return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "exceeded quota"), err
	})
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
