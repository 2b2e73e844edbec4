package main

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/audit"
	"sublet.dev/isolation/baseline"
	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/manager"
	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/tenant-apiserver/server"
)

// auditHost is a real host control plane without nodes, with one tenant as the
// manager and the syncer leave it.
type auditHost struct {
	server *server.Server
	client client.Client
	tenant v1alpha1.VirtualCluster
}

func newAuditHost(t *testing.T) auditHost {
	t.Helper()
	dir := t.TempDir()
	authority, err := pki.LoadOrCreate(filepath.Join(dir, "pki"), "host")
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.Start(t.Context(), server.Config{
		Name: "host", StorePath: filepath.Join(dir, "host.db"), PKI: authority,
		ServiceCIDR: netip.MustParsePrefix("10.96.0.0/12"), Advertise: netip.MustParseAddrPort("192.0.2.1:6443"),
		Host: &server.HostConfig{PodCIDR: netip.MustParsePrefix("10.244.0.0/16")},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	scheme, err := manager.Scheme()
	if err == nil {
		err = apiextensionsv1.AddToScheme(scheme)
	}
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(s.Loopback(), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	h := auditHost{server: s, client: c}
	h.onboard(t)
	return h
}

// onboard makes the tenant acme.
func (h *auditHost) onboard(t *testing.T) {
	t.Helper()
	for _, manifest := range v1alpha1.Manifests() {
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.Unmarshal(manifest, &crd); err != nil {
			t.Fatal(err)
		}
		h.create(t, &crd)
	}
	for _, o := range baseline.Host() {
		h.apply(t, o)
	}
	vc := &v1alpha1.VirtualCluster{ObjectMeta: metav1.ObjectMeta{Name: "acme"}, Spec: v1alpha1.VirtualClusterSpec{Sandbox: "gvisor"}}
	h.eventually(t, "the tenants' API is served", func(ctx context.Context) bool { return h.client.Create(ctx, vc) == nil })
	now := metav1.Now()
	vc.Status = v1alpha1.VirtualClusterStatus{
		Phase: v1alpha1.PhaseReady, Namespace: tenant.HostNamespace("acme", tenant.ID(vc.UID)), ServiceCIDR: "10.96.4.0/22",
		APIAddress: "192.0.2.1", APIPort: 31001, Cell: "cell-0",
		Conditions: []metav1.Condition{
			{Type: v1alpha1.ConditionFenced, Status: metav1.ConditionTrue, Reason: "Fenced", LastTransitionTime: now},
			{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: "Ready", LastTransitionTime: now},
		},
	}
	if err := h.client.Status().Update(t.Context(), vc); err != nil {
		t.Fatal(err)
	}
	h.tenant = *vc
	h.eventually(t, "there are plans", func(ctx context.Context) bool { return manager.EnsurePlans(ctx, h.client) == nil })
	var small v1alpha1.Plan
	if err := h.client.Get(t.Context(), client.ObjectKey{Name: vc.Spec.Plan}, &small); err != nil {
		t.Fatal(err)
	}
	tn := tenant.Tenant{ID: tenant.ID(vc.UID), Name: "acme", HostNamespace: vc.Status.Namespace, Sandbox: tenant.GVisor, ServiceCIDR: netip.MustParsePrefix("10.96.4.0/22")}
	for _, o := range baseline.Tenant(tn, "cell-0", small.Spec) {
		h.apply(t, o)
	}
	h.eventually(t, "the quotas are counted", func(ctx context.Context) bool { // until then they let nobody make anything
		var quotas corev1.ResourceQuotaList
		err := h.client.List(ctx, &quotas, client.InNamespace(tn.HostNamespace))
		return err == nil && len(quotas.Items) > 0 && !slices.ContainsFunc(quotas.Items, func(q corev1.ResourceQuota) bool { return len(q.Status.Hard) == 0 })
	})
	h.apiService(t, tn)
	h.create(t, h.pod("web"))
}

// apiService makes what leads to the tenant's API.
func (h *auditHost) apiService(t *testing.T, tn tenant.Tenant) {
	t.Helper()
	meta := metav1.ObjectMeta{Namespace: tn.HostNamespace, Name: "kubernetes",
		Labels: map[string]string{tenant.LabelTenant: string(tn.ID), tenant.LabelManagedBy: tenant.ManagedByManager}}
	h.create(t, &corev1.Service{ObjectMeta: *meta.DeepCopy(), Spec: corev1.ServiceSpec{
		ClusterIP: tenant.APIAddress(tn.ServiceCIDR).String(), Ports: []corev1.ServicePort{{Name: "https", Port: 443}}}})
	slice := &discoveryv1.EndpointSlice{ObjectMeta: meta, AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.1"}}},
		Ports:     []discoveryv1.EndpointPort{{Name: ptr.To("https"), Port: ptr.To[int32](31001)}}}
	slice.Labels[discoveryv1.LabelServiceName] = "kubernetes"
	h.create(t, slice)
}

// pod is a host pod as the syncer makes it.
func (h *auditHost) pod(name string) *corev1.Pod {
	o := tenant.Owner{Tenant: tenant.ID(h.tenant.UID), Name: tenant.Name{Namespace: "default", Name: name}, UID: "u-" + name}
	labels, annotations := o.Marks()
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: h.tenant.Status.Namespace, Name: string(o.Tenant.HostName(o.Name)), Labels: labels, Annotations: annotations},
		Spec: corev1.PodSpec{
			RuntimeClassName: ptr.To(tenant.GVisor.RuntimeClass()), AutomountServiceAccountToken: ptr.To(false),
			Containers: []corev1.Container{{Name: "c", Image: "example/web:1"}},
		},
	}
}

func (h *auditHost) create(t *testing.T, o client.Object) {
	t.Helper()
	if err := h.client.Create(t.Context(), o); err != nil {
		t.Fatalf("create %T %s: %v", o, o.GetName(), err)
	}
}

func (h *auditHost) apply(t *testing.T, o runtime.Object) {
	t.Helper()
	if err := manager.Apply(t.Context(), h.client, o); err != nil {
		t.Fatal(err)
	}
}

func (h *auditHost) eventually(t *testing.T, what string, done func(context.Context) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if err := wait.PollUntilContextCancel(ctx, 50*time.Millisecond, true, func(ctx context.Context) (bool, error) { return done(ctx), nil }); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func (h *auditHost) audit(t *testing.T, c audit.Config) *audit.Report {
	t.Helper()
	c.Host = h.server.Loopback()
	r, err := audit.Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// by returns the results of the first subject by id, with the statuses counted.
func by(r *audit.Report, subject string) map[string]audit.Result {
	out := map[string]audit.Result{}
	for _, s := range r.Subjects {
		if s.Name == subject {
			for _, res := range s.Results {
				out[res.ID] = res
			}
		}
	}
	return out
}

func TestAuditOfARealHost(t *testing.T) {
	h := newAuditHost(t)

	t.Run("a tenant in order, by reading", func(t *testing.T) {
		r := h.audit(t, audit.Config{})
		for id, res := range by(r, "acme") {
			switch {
			case res.Method == audit.ByConfig && res.Status != audit.Pass:
				t.Errorf("%s: %s: %s", id, res.Status, res.Reason)
			case res.Method == audit.Probe && res.Status != audit.Skip:
				t.Errorf("%s: %s without probing", id, res.Status)
			}
		}
		if res := by(r, "host")["SUB-HOST-001"]; res.Status != audit.Pass {
			t.Errorf("leftovers: %s: %s", res.Status, res.Reason)
		}
	})

	t.Run("no node: inconclusive, and nothing is left", func(t *testing.T) {
		r := h.audit(t, audit.Config{Probing: true, Timeout: 20 * time.Second, Tenants: []string{"acme"}})
		if res := by(r, "acme")["SUB-NET-001"]; res.Status != audit.Error {
			t.Errorf("SUB-NET-001 without a node: %s", res.Status)
		}
		if res := by(r, "acme")["SUB-ADM-001"]; res.Status != audit.Pass {
			t.Errorf("SUB-ADM-001: %s: %s", res.Status, res.Reason)
		}
		if r.ExitCode() != audit.ExitInconclusive {
			t.Errorf("exit code %d", r.ExitCode())
		}
		h.nothingLeft(t)
	})

	t.Run("interrupted: nothing is left", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		_, err := audit.Run(ctx, audit.Config{Host: h.server.Loopback(), Probing: true, Progress: func(line string) {
			if strings.HasPrefix(line, "starting") {
				cancel()
			}
		}})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		h.nothingLeft(t)
	})

	t.Run("findings", h.findings)
}

// nothingLeft looks for what an audit makes.
func (h *auditHost) nothingLeft(t *testing.T) {
	t.Helper()
	var pods corev1.PodList
	var tenants v1alpha1.VirtualClusterList
	for _, l := range []client.ObjectList{&pods, &tenants} {
		if err := h.client.List(t.Context(), l, client.HasLabels{audit.LabelAudit}); err != nil {
			t.Fatal(err)
		}
	}
	if len(pods.Items)+len(tenants.Items) > 0 {
		t.Errorf("left: %d pods, %d tenants", len(pods.Items), len(tenants.Items))
	}
}

// findings breaks things on the host, one after the other, and audits.
func (h *auditHost) findings(t *testing.T) {
	ns := h.tenant.Status.Namespace
	stray := h.pod("stray")
	stray.Labels["sublet.dev/managed-by"] = "kubectl"
	h.create(t, stray)
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "foreign",
		Labels: map[string]string{discoveryv1.LabelServiceName: "x", "pcns.sublet.dev/tenant": "y"}}, AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.77"}}}}
	h.create(t, slice)
	space := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}
	h.patch(t, space, `{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"privileged"}}}`)
	orphan := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "left-behind", Labels: map[string]string{tenant.LabelTenant: "gone"}}}
	h.create(t, orphan)
	h.create(t, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "for-all-accounts"},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "system:serviceaccounts"}}})

	r := h.audit(t, audit.Config{FailOn: audit.High})
	if r.ExitCode() != audit.ExitFindings {
		t.Errorf("exit code %d", r.ExitCode())
	}
	var failed []string
	for _, s := range r.Subjects {
		for _, res := range s.Results {
			if res.Status == audit.Fail {
				failed = append(failed, res.ID)
			}
		}
	}
	slices.Sort(failed)
	want := []string{"SUB-BASE-001", "SUB-HOST-001", "SUB-META-001", "SUB-POD-004", "SUB-RBAC-001", "SUB-SVC-002"}
	if !slices.Equal(failed, want) {
		t.Errorf("found %v, want %v", failed, want)
	}
}

func (h *auditHost) patch(t *testing.T, o client.Object, merge string) {
	t.Helper()
	if err := h.client.Patch(t.Context(), o, client.RawPatch("application/merge-patch+json", []byte(merge))); err != nil {
		t.Fatal(err)
	}
}

// Wrong usage of audit must not look like a finding to whoever reads exit codes.
func TestAuditExitCodes(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"unknown flag":     {[]string{"--nope"}, "unknown flag"},
		"unknown format":   {[]string{"-o", "yaml"}, "table, json"},
		"unknown probe":    {[]string{"--probe", "maybe"}, "active, none"},
		"unknown severity": {[]string{"--fail-on", "worst"}, "critical, high"},
		"no time":          {[]string{"--timeout", "0s"}, "--timeout"},
		"impossible name":  {[]string{"../x"}, "invalid tenant name"},
		"no Sublet":        {nil, "sublet up"},
	} {
		var out, errs strings.Builder
		args := append([]string{"audit", "--data-dir", t.TempDir()}, c.args...)
		code := run(t.Context(), args, streams{in: strings.NewReader(""), out: &out, err: &errs})
		if code != audit.ExitInternal || !strings.Contains(errs.String(), c.says) || out.Len() > 0 {
			t.Errorf("%s: exit code %d, %q; want %d and %q", name, code, errs.String(), audit.ExitInternal, c.says)
		}
	}
}
