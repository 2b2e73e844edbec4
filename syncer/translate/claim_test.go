package translate_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/translate"
)

var offered = policy.ClaimOffer{Classes: []string{"local", "fast"}}

// plainClaim is a claim of the tenant's that is offered.
func plainClaim() *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data", UID: "u7"},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: ptr.To("local"),
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": resource.MustParse("1Gi")}},
		},
	}
}

func TestClaim(t *testing.T) {
	tr := translation(tenant.GVisor)
	tenantClaim := plainClaim()
	// What controllers of a host believe must not come from the tenant.
	tenantClaim.Annotations = map[string]string{
		"volume.kubernetes.io/selected-node": "victim", "volume.kubernetes.io/storage-provisioner": "x",
		"volume.beta.kubernetes.io/storage-class": "x", "pv.kubernetes.io/bind-completed": "yes", "sublet.dev/tenant-uid": "another",
	}
	tenantClaim.Labels = map[string]string{"sublet.dev/tenant": "another", "app": "x"}
	tenantClaim.Finalizers = []string{"tenants/own"}
	tenantClaim.OwnerReferences = []metav1.OwnerReference{{UID: "x"}}
	tenantClaim.Spec.Resources.Limits = corev1.ResourceList{"storage": resource.MustParse("9Gi")}
	tenantClaim.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound, Capacity: corev1.ResourceList{"storage": resource.MustParse("9Ti")}}
	hostClaim, refusals := tr.Claim(tenantClaim, offered)
	if len(refusals) > 0 {
		t.Fatal(refusals)
	}
	id := acme(tenant.GVisor).ID
	labels, annotations := tenant.Owner{Tenant: id, Name: tenant.Name{Namespace: "shop", Name: "data"}, UID: "u7"}.Marks()
	want := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Name: string(id.HostName(tenant.Name{Namespace: "shop", Name: "data"})), Namespace: acme(tenant.GVisor).HostNamespace,
			Labels: labels, Annotations: annotations,
		},
		Spec: plainClaim().Spec,
	}
	want.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeFilesystem)
	if !reflect.DeepEqual(hostClaim, want) {
		t.Errorf("got %+v, want %+v", hostClaim, want)
	}
}

// TestClaimsThatAreNotOffered: each of them would reach for a volume of another, or
// for what the plan has not; the plain one, without the change, is offered.
func TestClaimsThatAreNotOffered(t *testing.T) {
	tr := translation(tenant.GVisor)
	if _, refusals := tr.Claim(plainClaim(), offered); len(refusals) > 0 {
		t.Fatalf("a plain claim is refused: %v", refusals)
	}
	for name, c := range map[string]struct {
		rule   string
		change func(*corev1.PersistentVolumeClaimSpec)
	}{
		"another's class":    {"storage-class", func(s *corev1.PersistentVolumeClaimSpec) { s.StorageClassName = ptr.To("gold") }},
		"no class":           {"storage-class", func(s *corev1.PersistentVolumeClaimSpec) { s.StorageClassName = ptr.To("") }},
		"class not said":     {"storage-class", func(s *corev1.PersistentVolumeClaimSpec) { s.StorageClassName = nil }},
		"another's volume":   {"claim-volume", func(s *corev1.PersistentVolumeClaimSpec) { s.VolumeName = "pvc-u8" }},
		"a volume by labels": {"claim-volume", func(s *corev1.PersistentVolumeClaimSpec) { s.Selector = &metav1.LabelSelector{} }},
		"a snapshot": {"claim-source", func(s *corev1.PersistentVolumeClaimSpec) {
			s.DataSource = &corev1.TypedLocalObjectReference{Kind: "VolumeSnapshot"}
		}},
		"a clone from beyond": {"claim-source", func(s *corev1.PersistentVolumeClaimSpec) {
			s.DataSourceRef = &corev1.TypedObjectReference{Namespace: ptr.To("victim")}
		}},
		"a raw device": {"claim-mode", func(s *corev1.PersistentVolumeClaimSpec) { s.VolumeMode = ptr.To(corev1.PersistentVolumeBlock) }},
		"attributes":   {"claim-attributes", func(s *corev1.PersistentVolumeClaimSpec) { s.VolumeAttributesClassName = ptr.To("gold") }},
	} {
		tenantClaim := plainClaim()
		c.change(&tenantClaim.Spec)
		hostClaim, refusals := tr.Claim(tenantClaim, offered)
		if hostClaim != nil || len(refusals) == 0 || refusals[0].Rule != c.rule {
			t.Errorf("%s: %+v, %v", name, hostClaim, refusals)
		}
		if why := translate.Refused(refusals); !strings.Contains(why, "["+c.rule+"]") {
			t.Errorf("%s: the tenant is told %q", name, why)
		}
	}
	if hostClaim, refusals := tr.Claim(plainClaim(), policy.ClaimOffer{}); hostClaim != nil || len(refusals) == 0 {
		t.Error("a plan without classes gives volumes")
	}
	// The name that the syncer itself gave is no choice.
	bound := plainClaim()
	bound.Spec.VolumeName = translate.VolumeName(bound.UID)
	if hostClaim, refusals := tr.Claim(bound, offered); len(refusals) > 0 || hostClaim.Spec.VolumeName != "" {
		t.Errorf("a bound claim: %+v, %v", hostClaim, refusals)
	}
}

// boundHostClaim is the host claim of the plain one, bound by the host.
func boundHostClaim(t *testing.T, tr translate.Translation) *corev1.PersistentVolumeClaim {
	t.Helper()
	hostClaim, refusals := tr.Claim(plainClaim(), offered)
	if len(refusals) > 0 {
		t.Fatal(refusals)
	}
	hostClaim.Spec.VolumeName = "pvc-of-the-host"
	hostClaim.Status = corev1.PersistentVolumeClaimStatus{
		Phase: corev1.ClaimBound, AccessModes: hostClaim.Spec.AccessModes, Capacity: corev1.ResourceList{"storage": resource.MustParse("2Gi")},
		Conditions: []corev1.PersistentVolumeClaimCondition{
			{Type: corev1.PersistentVolumeClaimFileSystemResizePending, Status: corev1.ConditionTrue, Message: "on host-node-1"},
			{Type: "of-the-host", Status: corev1.ConditionTrue},
		},
	}
	return hostClaim
}

func TestClaimUp(t *testing.T) {
	tr := translation(tenant.GVisor)
	hostClaim, tenantClaim := boundHostClaim(t, tr), plainClaim()
	if before, changed := translate.ClaimStatus(hostClaim, tenantClaim); !changed || before.Status.Phase != corev1.ClaimPending {
		t.Errorf("a claim without its volume is %q", before.Status.Phase)
	}
	bound, changed := translate.BindClaim(hostClaim, tenantClaim)
	if !changed || bound.Spec.VolumeName != "pvc-u7" || tenantClaim.Spec.VolumeName != "" {
		t.Fatalf("bound to %q", bound.Spec.VolumeName)
	}
	up, _ := translate.ClaimStatus(hostClaim, bound)
	if s := up.Status; s.Phase != corev1.ClaimBound || s.Capacity.Storage().String() != "2Gi" || len(s.Conditions) != 1 || s.Conditions[0].Message != "" {
		t.Errorf("status %+v", s)
	}
	if _, changed := translate.ClaimStatus(hostClaim, up); changed {
		t.Error("the status changes without end")
	}
	// A tenant that chose a volume is not given one, whatever it says of its state.
	chose := plainClaim()
	chose.Spec.VolumeName, chose.Status.Phase = "pvc-of-another", corev1.ClaimBound
	if _, changed := translate.BindClaim(hostClaim, chose); changed {
		t.Error("a claim with a volume of its own choice was bound")
	}
	if up, _ := translate.ClaimStatus(hostClaim, chose); up.Status.Phase != corev1.ClaimPending || up.Status.Capacity != nil {
		t.Errorf("a forged claim is %+v", up.Status)
	}
}

// claimStatusFields are the decisions on what a tenant sees of its claims' state.
var claimStatusFields = map[string]bool{
	"Phase": true, "AccessModes": true, "Capacity": true, "Conditions": true, "AllocatedResources": true, "AllocatedResourceStatuses": true,
	"CurrentVolumeAttributesClassName": false, "ModifyVolumeStatus": false, "HealthStatus": false,
}

func TestEveryClaimStatusFieldIsDecided(t *testing.T) {
	at := reflect.TypeFor[corev1.PersistentVolumeClaimStatus]()
	for i := range at.NumField() {
		if _, ok := claimStatusFields[at.Field(i).Name]; !ok {
			t.Errorf("no decision on PersistentVolumeClaimStatus.%s", at.Field(i).Name)
		}
	}
}

func TestVolumeView(t *testing.T) {
	tr := translation(tenant.GVisor)
	hostClaim := boundHostClaim(t, tr)
	view := tr.Volume(hostClaim)
	if view == nil || view.Name != "pvc-u7" || view.Spec.ClaimRef.Name != "data" || view.Spec.ClaimRef.Namespace != "shop" || view.Spec.ClaimRef.UID != "u7" {
		t.Fatalf("view %+v", view)
	}
	if text := view.String(); strings.Contains(text, "pvc-of-the-host") || strings.Contains(text, hostClaim.Name) || strings.Contains(text, hostClaim.Namespace) {
		t.Errorf("the view names the host's objects: %s", text)
	}
	if view.Spec.HostPath != nil || view.Spec.Local != nil || view.Spec.NodeAffinity != nil {
		t.Error("the view says where the volume lies")
	}
	changed := view.DeepCopy()
	changed.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
	changed.Spec.MountOptions = []string{"suid"}
	if merged, d := translate.MergeVolume(changed, view); d != engine.Changed || merged.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete || merged.Spec.MountOptions != nil {
		t.Errorf("what the tenant changed stays: %v %+v", d, merged.Spec)
	}
	forged := view.DeepCopy()
	forged.Spec.CSI, forged.Spec.HostPath = nil, &corev1.HostPathVolumeSource{Path: "/"}
	if _, d := translate.MergeVolume(forged, view); d != engine.Immutable {
		t.Errorf("a forged volume stays: %v", d)
	}
	pending := hostClaim.DeepCopy()
	pending.Status.Phase = corev1.ClaimPending
	if tr.Volume(pending) != nil {
		t.Error("a claim that waits has a volume")
	}
	ending := hostClaim.DeepCopy()
	ending.DeletionTimestamp = ptr.To(metav1.Now())
	for from, phase := range map[*corev1.PersistentVolumeClaim]corev1.PersistentVolumePhase{
		hostClaim: corev1.VolumeBound, ending: corev1.VolumeReleased, nil: corev1.VolumeReleased,
	} {
		if got, _ := translate.VolumeStatus(from, view); got.Status.Phase != phase {
			t.Errorf("the view is %s, not %s", got.Status.Phase, phase)
		}
	}
}

func TestClassView(t *testing.T) {
	late := storagev1.VolumeBindingWaitForFirstConsumer
	hostClass := &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{Name: "local", Annotations: map[string]string{"of": "the host"}}, Provisioner: "host.example/disk",
		Parameters: map[string]string{"secret": "x"}, ReclaimPolicy: ptr.To(corev1.PersistentVolumeReclaimRetain), VolumeBindingMode: &late, MountOptions: []string{"x"},
	}
	view := translation(tenant.GVisor).Class(hostClass, true)
	if *view.ReclaimPolicy != corev1.PersistentVolumeReclaimDelete || *view.VolumeBindingMode != late || len(view.Annotations) != 1 {
		t.Errorf("view %+v", view)
	}
	if text := view.String(); strings.Contains(text, "host.example") || strings.Contains(text, "secret") {
		t.Errorf("the view tells how volumes are made: %s", text)
	}
	forged := view.DeepCopy()
	forged.Provisioner = "tenants.example/own"
	if _, d := translate.MergeClass(forged, view); d != engine.Immutable {
		t.Errorf("a forged class stays: %v", d)
	}
	changed := view.DeepCopy()
	changed.Annotations, changed.AllowVolumeExpansion = nil, ptr.To(true)
	if merged, d := translate.MergeClass(changed, view); d != engine.Changed || !reflect.DeepEqual(merged, view) {
		t.Errorf("what the tenant changed stays: %v %+v", d, merged)
	}
}

func TestMergeClaim(t *testing.T) {
	tr := translation(tenant.GVisor)
	have := boundHostClaim(t, tr)
	have.Annotations["volume.kubernetes.io/selected-node"] = "n1" // the host's own
	larger := plainClaim()
	larger.Spec.Resources.Requests["storage"] = resource.MustParse("3Gi")
	want, _ := tr.Claim(larger, offered)
	merged, d := translate.MergeClaim(have, want)
	if d != engine.Changed || merged.Spec.Resources.Requests.Storage().String() != "3Gi" || merged.Spec.VolumeName != have.Spec.VolumeName ||
		merged.Annotations["volume.kubernetes.io/selected-node"] != "n1" {
		t.Errorf("%v %+v", d, merged)
	}
	if _, d := translate.MergeClaim(merged, want); d != engine.Same {
		t.Error("it changes without end")
	}
}

// TestPodsMountClaims: by the host's names, generic ephemeral volumes too.
func TestPodsMountClaims(t *testing.T) {
	tr := translation(tenant.GVisor)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db", UID: "u1"}}
	pod.Spec.Containers = []corev1.Container{{Name: "app", Image: "app:1"}}
	pod.Spec.Volumes = []corev1.Volume{
		{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data", ReadOnly: true}}},
		{Name: "tmp", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{
			ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}, Spec: plainClaim().Spec}}}},
	}
	hostPod, refusals := tr.Pod(pod)
	if len(refusals) > 0 {
		t.Fatal(refusals)
	}
	id := acme(tenant.GVisor).ID
	var got []string
	for _, v := range hostPod.Spec.Volumes {
		got = append(got, v.PersistentVolumeClaim.ClaimName)
	}
	want := []string{string(id.HostName(tenant.Name{Namespace: "shop", Name: "data"})), string(id.HostName(tenant.Name{Namespace: "shop", Name: "db-tmp"}))}
	if !slices.Equal(got, want) || !hostPod.Spec.Volumes[0].PersistentVolumeClaim.ReadOnly {
		t.Errorf("mounts %v, want %v", got, want)
	}
	for name, change := range map[string]func(*corev1.PersistentVolumeClaimSpec){
		"another's volume": func(s *corev1.PersistentVolumeClaimSpec) { s.VolumeName = "pvc-u8" },
		"a clone": func(s *corev1.PersistentVolumeClaimSpec) {
			s.DataSourceRef = &corev1.TypedObjectReference{Kind: "PersistentVolumeClaim", Name: "x"}
		},
		"a raw device": func(s *corev1.PersistentVolumeClaimSpec) { s.VolumeMode = ptr.To(corev1.PersistentVolumeBlock) },
	} {
		bad := pod.DeepCopy()
		change(&bad.Spec.Volumes[1].Ephemeral.VolumeClaimTemplate.Spec)
		if _, refusals := tr.Pod(bad); len(refusals) == 0 {
			t.Errorf("a pod whose ephemeral volume is %s is not refused", name)
		}
	}
}
