package syncer

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/baseline"
	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/translate"
)

// hostConfig reaches the host's API with all rights.
var hostConfig *rest.Config

// offerStorage gives the tenant a plan with the class "local", on a host that has
// also another one.
func offerStorage(t *testing.T) {
	t.Helper()
	other := baseline.LocalStorage()
	other.Name = "gold"
	for _, class := range []*storagev1.StorageClass{baseline.LocalStorage(), other} {
		if _, err := w.host.StorageV1().StorageClasses().Create(t.Context(), class, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
	for _, o := range baseline.Tenant(acme, cell, v1alpha1.PlanSpec{StorageClasses: []string{"local"}}) {
		var err error
		switch o := o.(type) {
		case *corev1.Namespace:
			_, err = w.host.CoreV1().Namespaces().Update(t.Context(), o, metav1.UpdateOptions{})
		case *corev1.ResourceQuota:
			_, err = w.host.CoreV1().ResourceQuotas(o.Namespace).Update(t.Context(), o, metav1.UpdateOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	w.syncer().SetStorageClasses([]string{"local"})
	wait(t, "the quota is known", func() (bool, any) {
		q, err := w.host.CoreV1().ResourceQuotas(acme.HostNamespace).Get(t.Context(), "sublet", metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		return q.Status.Hard.Storage() != nil && !q.Status.Hard.Name(corev1.ResourceRequestsStorage, resource.BinarySI).IsZero(), q.Status
	})
}

func storageClaim(namespace, name string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: ptr.To("local"),
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": resource.MustParse("1Gi")}},
		},
	}
}

// waitClaim waits until the tenant's claim is as asked.
func waitClaim(t *testing.T, namespace, name, what string, is func(*corev1.PersistentVolumeClaim) bool) *corev1.PersistentVolumeClaim {
	t.Helper()
	var claim *corev1.PersistentVolumeClaim
	wait(t, "claim "+what, func() (ok bool, last any) {
		var err error
		if claim, err = w.tenant.CoreV1().PersistentVolumeClaims(namespace).Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			return false, err
		}
		return is(claim), claim
	})
	return claim
}

// provision does what a node's provisioner does for a host claim once the scheduler
// has chosen its node.
func provision(t *testing.T, namespace, name string) {
	t.Helper()
	var claim *corev1.PersistentVolumeClaim
	wait(t, "the scheduler's choice", func() (bool, any) {
		var err error
		claim, err = w.host.CoreV1().PersistentVolumeClaims(acme.HostNamespace).Get(t.Context(), hostName(namespace, name), metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		return claim.Annotations["volume.kubernetes.io/selected-node"] == hostNode, claim
	})
	pv := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pvc-" + string(claim.UID), Annotations: map[string]string{"pv.kubernetes.io/provisioned-by": baseline.LocalProvisioner}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: corev1.ResourceList{"storage": resource.MustParse("2Gi")}, AccessModes: claim.Spec.AccessModes, StorageClassName: "local",
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			PersistentVolumeSource:        corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/srv/of-the-host"}},
			ClaimRef:                      &corev1.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
				{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{hostNode}}}}}}},
		},
	}
	if _, err := w.host.CoreV1().PersistentVolumes().Create(t.Context(), pv, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := w.host.CoreV1().PersistentVolumes().Delete(t.Context(), pv.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) && t.Context().Err() == nil {
			t.Error(err)
		}
	})
}

// TestClaims takes a claim from its pod to its end, with what a hostile tenant writes
// on it.
func TestClaims(t *testing.T) {
	offerStorage(t)
	ns := namespace(t)
	wait(t, "the class", func() (bool, any) {
		class, err := w.tenant.StorageV1().StorageClasses().Get(t.Context(), "local", metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		return class.Provisioner == translate.StorageDriver && class.Annotations["storageclass.kubernetes.io/is-default-class"] == "true", class
	})
	asked := storageClaim(ns, "data")
	asked.Spec.StorageClassName = nil // the default
	asked.Annotations = map[string]string{"volume.kubernetes.io/selected-node": "elsewhere", "volume.kubernetes.io/storage-provisioner": "x"}
	claim, err := w.tenant.CoreV1().PersistentVolumeClaims(ns).Create(t.Context(), asked, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// A volume of the tenant's own in the place of the view.
	if _, err := w.tenant.CoreV1().PersistentVolumes().Create(t.Context(), &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: translate.VolumeName(claim.UID)},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: corev1.ResourceList{"storage": resource.MustParse("1Gi")}, AccessModes: claim.Spec.AccessModes,
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/etc"}},
		},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod := simplePod(ns, "db")
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "data", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}})
	own := create(t, pod)
	provision(t, ns, "data")
	hostPod := waitHostPod(t, ns, "db", own.UID)
	if v := hostPod.Spec.Volumes; !slices.ContainsFunc(v, func(v corev1.Volume) bool {
		return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == hostName(ns, "data")
	}) {
		t.Errorf("the host pod mounts %+v", v)
	}
	claim = waitClaim(t, ns, "data", "is bound", func(c *corev1.PersistentVolumeClaim) bool { return c.Status.Phase == corev1.ClaimBound })
	if claim.Spec.VolumeName != translate.VolumeName(claim.UID) || claim.Status.Capacity.Storage().String() != "2Gi" {
		t.Errorf("claim %+v", claim)
	}
	wait(t, "the view of the volume", func() (bool, any) {
		view, err := w.tenant.CoreV1().PersistentVolumes().Get(t.Context(), claim.Spec.VolumeName, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		return view.Spec.HostPath == nil && view.Spec.CSI != nil && view.Status.Phase == corev1.VolumeBound && !strings.Contains(view.String(), "of-the-host"), view
	})
	waitTenantPod(t, ns, "db", "bound", func(p *corev1.Pod) bool { return p.Spec.NodeName != "" }) // before, it does not use the claim
	endOfClaim(t, ns, own, hostPod, claim)
}

// endOfClaim: the claim waits for its pod, then goes on both sides, with its view.
func endOfClaim(t *testing.T, ns string, own, hostPod *corev1.Pod, claim *corev1.PersistentVolumeClaim) {
	t.Helper()
	if err := w.tenant.CoreV1().PersistentVolumeClaims(ns).Delete(t.Context(), "data", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	waitClaim(t, ns, "data", "is protected", func(c *corev1.PersistentVolumeClaim) bool { return c.DeletionTimestamp != nil })
	if _, err := w.host.CoreV1().PersistentVolumeClaims(acme.HostNamespace).Get(t.Context(), hostName(ns, "data"), metav1.GetOptions{}); err != nil {
		t.Errorf("the host claim of a claim that is in use: %v", err)
	}
	dropPod(t, own, hostPod)
	wait(t, "the end of claim, view and host claim", func() (bool, any) {
		_, claimErr := w.tenant.CoreV1().PersistentVolumeClaims(ns).Get(t.Context(), "data", metav1.GetOptions{})
		_, viewErr := w.tenant.CoreV1().PersistentVolumes().Get(t.Context(), claim.Spec.VolumeName, metav1.GetOptions{})
		_, hostErr := w.host.CoreV1().PersistentVolumeClaims(acme.HostNamespace).Get(t.Context(), hostName(ns, "data"), metav1.GetOptions{})
		return apierrors.IsNotFound(claimErr) && apierrors.IsNotFound(viewErr) && apierrors.IsNotFound(hostErr), []error{claimErr, viewErr, hostErr}
	})
}

// TestRefusedClaims: the tenant is told, and nothing is on the host.
func TestRefusedClaims(t *testing.T) {
	offerStorage(t)
	ns := namespace(t)
	for name, c := range map[string]struct {
		rule   string
		change func(*corev1.PersistentVolumeClaimSpec)
	}{
		"gold":  {"storage-class", func(s *corev1.PersistentVolumeClaimSpec) { s.StorageClassName = ptr.To("gold") }},
		"steal": {"claim-volume", func(s *corev1.PersistentVolumeClaimSpec) { s.VolumeName = "pvc-of-another" }},
		"clone": {"claim-source", func(s *corev1.PersistentVolumeClaimSpec) {
			s.DataSource = &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: "x"}
		}},
	} {
		claim := storageClaim(ns, name)
		if warnings, err := w.syncer().Judge(claim); err != nil || len(warnings) > 0 {
			t.Errorf("a plain claim: %v, %q", err, warnings)
		}
		c.change(&claim.Spec)
		if warnings, err := w.syncer().Judge(claim); err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "["+c.rule+"]") {
			t.Errorf("%s: the tenant's API is told %v, %q", name, err, warnings)
		}
		if _, err := w.tenant.CoreV1().PersistentVolumeClaims(ns).Create(t.Context(), claim, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		wait(t, "event on "+name, func() (bool, any) {
			events, err := w.tenant.CoreV1().Events(ns).List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + name})
			if err != nil {
				return false, err
			}
			return slices.ContainsFunc(events.Items, func(e corev1.Event) bool { return strings.Contains(e.Message, "["+c.rule+"]") }), events.Items
		})
		if _, err := w.host.CoreV1().PersistentVolumeClaims(acme.HostNamespace).Get(t.Context(), hostName(ns, name), metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("%s: its host claim: %v", name, err)
		}
	}
}

// TestHostRefusesClaims writes to the host as the tenant's own identity there, as a
// syncer that somebody has taken over would.
func TestHostRefusesClaims(t *testing.T) {
	offerStorage(t)
	config := quick(hostConfig)
	config.Impersonate.UserName = tenant.WriteUser(acme.HostNamespace)
	confused, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	claims := confused.CoreV1().PersistentVolumeClaims(acme.HostNamespace)
	good := func(name string) *corev1.PersistentVolumeClaim {
		c := storageClaim(acme.HostNamespace, name)
		c.Labels, c.Annotations = tenant.Owner{Tenant: acme.ID, Name: tenant.Name{Namespace: "x", Name: name}, UID: "u"}.Marks()
		c.Labels[tenant.LabelManagedBy] = "test" // the syncer would remove it
		return c
	}
	var made *corev1.PersistentVolumeClaim
	wait(t, "a claim as the syncer makes them", func() (bool, any) { // admission learns of the namespace by watching it
		var err error
		made, err = claims.Create(t.Context(), good("good"), metav1.CreateOptions{})
		return err == nil, err
	})
	t.Cleanup(func() {
		_ = w.host.CoreV1().PersistentVolumeClaims(acme.HostNamespace).Delete(t.Context(), "good", metav1.DeleteOptions{}) // it ends with the world
	})
	for name, change := range map[string]func(*corev1.PersistentVolumeClaim){
		"class":    func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = ptr.To("gold") },
		"no class": func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = ptr.To("") },
		"volume":   func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "pvc-of-another" },
		"selector": func(c *corev1.PersistentVolumeClaim) {
			c.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
		},
		"source": func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: "x"}
		},
		"device":     func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock) },
		"annotation": func(c *corev1.PersistentVolumeClaim) { c.Annotations["volume.kubernetes.io/selected-node"] = hostNode },
		"label":      func(c *corev1.PersistentVolumeClaim) { c.Labels["tenants"] = "own" },
		"mark":       func(c *corev1.PersistentVolumeClaim) { c.Labels[tenant.LabelTenant] = "another" },
	} {
		c := good("bad-" + strings.ReplaceAll(name, " ", "-"))
		change(c)
		if _, err := claims.Create(t.Context(), c, metav1.CreateOptions{}); !refusedByPolicy(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	made = made.DeepCopy()
	made.Spec.VolumeName = "pvc-of-another"
	if _, err := claims.Update(t.Context(), made, metav1.UpdateOptions{}); !refusedByPolicy(err) {
		t.Errorf("choosing a volume later: %v", err)
	}
	made.Spec.VolumeName = ""
	made.Annotations["volume.kubernetes.io/selected-node"] = hostNode
	if _, err := claims.Update(t.Context(), made, metav1.UpdateOptions{}); !refusedByPolicy(err) {
		t.Errorf("choosing a node later: %v", err)
	}
}

func refusedByPolicy(err error) bool {
	return err != nil && strings.Contains(err.Error(), "ValidatingAdmissionPolicy 'sublet-tenant-claims'")
}
