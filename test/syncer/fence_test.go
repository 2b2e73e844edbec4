package syncer

import (
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"sublet.dev/isolation/tenant"
)

// hostAs is a client of the host that acts as a user.
func hostAs(t *testing.T, user string) *kubernetes.Clientset {
	t.Helper()
	config := quick(hostConfig)
	config.Impersonate = rest.ImpersonationConfig{UserName: user}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// TestHostHoldsTheFence: whatever the host is, the rights and the admission policies
// of isolation/baseline are in force there. The host is asked as a syncer that somebody
// has taken over would, and not to do it (dry run).
func TestHostHoldsTheFence(t *testing.T) {
	writer, cellUser := hostAs(t, tenant.WriteUser(acme.HostNamespace)), hostAs(t, tenant.CellUser(cell))
	dry := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	ns := namespace(t)
	own := create(t, simplePod(ns, "web"))
	made := waitHostPod(t, ns, "web", own.UID)
	like := func(change func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: made.Namespace, Name: "another", Labels: made.Labels, Annotations: made.Annotations}, Spec: *made.Spec.DeepCopy()}
		p.Spec.NodeName, p.Spec.Priority, p.Spec.PreemptionPolicy = "", nil, nil
		change(p)
		return p
	}
	if _, err := writer.CoreV1().Pods(acme.HostNamespace).Create(t.Context(), like(func(*corev1.Pod) {}), dry); err != nil {
		t.Fatalf("a pod as the syncer makes them is refused: %v", err)
	}
	for name, change := range map[string]func(*corev1.Pod){
		"another sandbox": func(p *corev1.Pod) { p.Spec.RuntimeClassName, p.Spec.Overhead, p.Spec.NodeSelector = nil, nil, nil },
		"a priority":      func(p *corev1.Pod) { p.Spec.PriorityClassName = "system-node-critical" },
		"a node":          func(p *corev1.Pod) { p.Spec.NodeName = hostNode },
		"a token":         func(p *corev1.Pod) { p.Spec.AutomountServiceAccountToken = ptr.To(true) },
		"another's mark":  func(p *corev1.Pod) { p.Labels = map[string]string{tenant.LabelTenant: "another"} },
	} {
		_, err := writer.CoreV1().Pods(acme.HostNamespace).Create(t.Context(), like(change), dry)
		if err == nil || !strings.Contains(err.Error(), "ValidatingAdmissionPolicy 'sublet-tenant'") {
			t.Errorf("%s: %v", name, err)
		}
	}
	open := like(func(p *corev1.Pod) { p.Spec.HostNetwork = true })
	if _, err := writer.CoreV1().Pods(acme.HostNamespace).Create(t.Context(), open, dry); err == nil || !strings.Contains(err.Error(), "violates PodSecurity") {
		t.Errorf("host network: %v", err)
	}
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "x"}}
	if _, err := writer.CoreV1().ConfigMaps(acme.HostNamespace).Create(t.Context(), m, dry); err != nil {
		t.Errorf("the tenant's identity may not write where it must: %v", err)
	}
	if _, err := cellUser.CoreV1().ConfigMaps(acme.HostNamespace).List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("the cell may not read where it must: %v", err)
	}
	asCell := func(who string) error { // as it really is, not as somebody who acts as the cell
		config := quick(w.cellConfig)
		config.Impersonate.UserName = who
		api, err := kubernetes.NewForConfig(config)
		if err != nil {
			return err
		}
		_, err = api.CoreV1().ConfigMaps(acme.HostNamespace).Create(t.Context(), m, dry)
		return err
	}
	if err := asCell(tenant.WriteUser(acme.HostNamespace)); err != nil {
		t.Errorf("the cell may not act as the tenant's identity: %v", err)
	}
	for name, try := range map[string]func() error{
		"the cell acts as another account of the tenant's namespace": func() error { return asCell("system:serviceaccount:" + acme.HostNamespace + ":default") },
		"the cell acts as another tenant":                            func() error { return asCell(tenant.WriteUser("default")) },
		"the cell acts as the host's":                                func() error { return asCell("system:serviceaccount:kube-system:namespace-controller") },
		"the cell acts as an administrator":                          func() error { return asCell("admin") },
		"the tenant has a token made of its identity": func() error {
			_, err := writer.CoreV1().ServiceAccounts(acme.HostNamespace).CreateToken(t.Context(), tenant.Writer, &authenticationv1.TokenRequest{}, dry)
			return err
		},
		"the tenant writes elsewhere": func() error {
			_, err := writer.CoreV1().ConfigMaps("default").Create(t.Context(), m, dry)
			return err
		},
		"the tenant binds": func() error {
			return writer.CoreV1().Pods(acme.HostNamespace).Bind(t.Context(), &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: made.Name}, Target: corev1.ObjectReference{Kind: "Node", Name: hostNode}}, dry)
		},
		"the tenant changes its quota": func() error {
			return writer.CoreV1().ResourceQuotas(acme.HostNamespace).Delete(t.Context(), "sublet", metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}})
		},
		"the cell writes": func() error {
			_, err := cellUser.CoreV1().ConfigMaps(acme.HostNamespace).Create(t.Context(), m, dry)
			return err
		},
		"the cell reads elsewhere": func() error {
			_, err := cellUser.CoreV1().Secrets("kube-system").List(t.Context(), metav1.ListOptions{})
			return err
		},
	} {
		if err := try(); !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	dropPod(t, own, made)
}
