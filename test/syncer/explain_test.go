package syncer

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer"
	"sublet.dev/syncer/translate"
)

// A pod can be explained from both sides, with both objects, the fate of its fields
// and what its syncer does about it.
func TestExplain(t *testing.T) {
	ns := namespace(t)
	own := create(t, simplePod(ns, "web"))
	hostPod := waitHostPod(t, ns, "web", own.UID)
	e, err := w.syncer().ExplainHost(t.Context(), "pods", hostPod.Name)
	if err != nil {
		t.Fatal(err)
	}
	if e.Namespace != ns || e.Name != "web" || e.HostName != hostPod.Name || e.HostNamespace != acme.HostNamespace {
		t.Errorf("%s/%s, %s/%s", e.Namespace, e.Name, e.HostNamespace, e.HostName)
	}
	if e.TenantPod == nil || e.HostPod == nil || e.TenantPod.UID != own.UID || e.HostPod.UID != hostPod.UID || e.Held != "" || len(e.Passes) != 3 {
		t.Errorf("%+v", e)
	}
	if !slices.Contains(e.Fields, translate.Fate{Field: "spec.runtimeClassName", Fate: "forced"}) {
		t.Errorf("fields %+v", e.Fields)
	}
	for _, missing := range []string{"none", hostPod.Name + "x"} {
		if _, err := w.syncer().ExplainHost(t.Context(), "pods", missing); !errors.Is(err, syncer.ErrNotFound) {
			t.Errorf("%s: %v", missing, err)
		}
		if _, err := w.syncer().ExplainPod(t.Context(), tenant.Name{Namespace: ns, Name: missing}); !errors.Is(err, syncer.ErrNotFound) {
			t.Errorf("%s: %v", missing, err)
		}
	}
	refused := simplePod(ns, "bad")
	refused.Spec.HostNetwork = true
	create(t, refused)
	wait(t, "reason", func() (bool, any) {
		e, err = w.syncer().ExplainPod(t.Context(), tenant.Name{Namespace: ns, Name: "bad"})
		return err == nil && e.Held != "", err
	})
	at := slices.IndexFunc(e.Fields, func(f translate.Fate) bool { return f.Field == "spec.hostNetwork" })
	if at < 0 || e.Fields[at].Fate != "refused" || e.Fields[at].Rule != "host-namespaces" || e.HostPod != nil {
		t.Errorf("%+v", e)
	}
	explainedKinds(t, ns, hostPod)
	dropPod(t, own, hostPod)
}

// appliedSecret is a Secret as kubectl apply makes it: its value stands in an annotation, too.
func appliedSecret(meta metav1.ObjectMeta) *corev1.Secret {
	value := base64.StdEncoding.EncodeToString([]byte("hidden"))
	meta.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: `{"data":{"a":"` + value + `"}}`}
	return &corev1.Secret{ObjectMeta: meta, Data: map[string][]byte{"a": []byte("hidden")}}
}

// explainedKinds: an object of every kind can be explained from both sides, with the
// fates of its fields.
func explainedKinds(t *testing.T, ns string, hostPod *corev1.Pod) {
	t.Helper()
	offerStorage(t)
	makeClaim(t, storageClaim(ns, "disk"))
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: ns, Name: name} }
	_, err := w.tenant.CoreV1().ConfigMaps(ns).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: meta("used"), Data: map[string]string{"a": "b"}}, metav1.CreateOptions{})
	if err == nil {
		_, err = w.tenant.CoreV1().Secrets(ns).Create(t.Context(), appliedSecret(meta("used")), metav1.CreateOptions{})
	}
	if err == nil {
		_, err = w.tenant.CoreV1().Services(ns).Create(t.Context(), &corev1.Service{ObjectMeta: meta("web"), Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}, metav1.CreateOptions{})
	}
	if err == nil {
		_, err = w.tenant.DiscoveryV1().EndpointSlices(ns).Create(t.Context(), &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}}, AddressType: discoveryv1.AddressTypeIPv4,
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"8.8.8.8"}}},
		}, metav1.CreateOptions{})
	}
	if err == nil {
		_, err = w.tenant.NetworkingV1().NetworkPolicies(ns).Create(t.Context(), &networkingv1.NetworkPolicy{ObjectMeta: meta("deny"), Spec: networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}}}, metav1.CreateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	user := simplePod(ns, "user")
	user.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{
		{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "used"}}},
		{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "used"}}}}
	create(t, user)
	for word, c := range map[string]struct {
		name  string
		fate  translate.Fate
		quiet string // does not stand in the explanation
	}{
		"svc":                    {"web", translate.Fate{Field: "spec.clusterIP", Fate: "copied"}, ""},
		"endpointslice":          {"web-1", translate.Fate{Field: "endpoints[0].addresses[0]", Fate: "dropped", Reason: "no pod of the tenant on the host has this address"}, ""},
		"cm":                     {"used", translate.Fate{Field: "data", Fate: "copied"}, ""},
		"secret":                 {"used", translate.Fate{Field: "type", Fate: "forced"}, base64.StdEncoding.EncodeToString([]byte("hidden"))},
		"persistentvolumeclaims": {"disk", translate.Fate{Field: "spec.storageClassName", Fate: "copied"}, ""},
		"netpol":                 {"deny", translate.Fate{Field: "spec.policyTypes", Fate: "translated"}, ""},
	} {
		resource, ok := syncer.Resource(word)
		if !ok {
			t.Fatalf("%s is not known", word)
		}
		var e *syncer.Explanation
		wait(t, "the host's "+resource, func() (bool, any) {
			var err error
			e, err = w.syncer().ExplainHost(t.Context(), resource, hostName(ns, c.name))
			return err == nil && e.TenantObject != nil && e.HostObject != nil, err
		})
		same, err := w.syncer().Explain(t.Context(), resource, tenant.Name{Namespace: ns, Name: c.name})
		if err != nil || same.HostName != e.HostName || e.Kind != resource || e.Name != c.name || len(e.Passes) == 0 || !strings.Contains(e.Pairing, "this very object") {
			t.Errorf("%s: %v, %+v", resource, err, e)
		}
		if !slices.Contains(e.Fields, c.fate) {
			t.Errorf("%s: fields %+v, want %+v", resource, e.Fields, c.fate)
		}
		if text := string(must(json.Marshal(e))); c.quiet != "" && strings.Contains(text, c.quiet) {
			t.Errorf("%s: %s", resource, text)
		}
		if _, err := w.syncer().Explain(t.Context(), resource, tenant.Name{Namespace: ns, Name: "none"}); !errors.Is(err, syncer.ErrNotFound) {
			t.Errorf("%s that is not there: %v", resource, err)
		}
	}
	// What is made for a pod beside it explains the pod.
	waitSecret(t, hostName(ns, "web:tokens"))
	e, err := w.syncer().ExplainHost(t.Context(), "secrets", hostName(ns, "web:tokens"))
	if err != nil || e.HostPod == nil || e.HostPod.UID != hostPod.UID {
		t.Errorf("the tokens of a pod: %v, %+v", err, e)
	}
}
