package syncer

import (
	"encoding/json"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/utils/ptr"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/translate"
)

// snapshotsDefinition and snapshotClassesDefinition are the kinds of a host with
// snapshots, as far as they are a tenant's.
const snapshotsDefinition = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: volumesnapshots.snapshot.storage.k8s.io
  annotations: {api-approved.kubernetes.io: "https://github.com/kubernetes-csi/external-snapshotter/pull/814"}
spec:
  group: snapshot.storage.k8s.io
  names: {plural: volumesnapshots, singular: volumesnapshot, kind: VolumeSnapshot, listKind: VolumeSnapshotList, shortNames: [vs]}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          spec:
            type: object
            required: [source]
            properties:
              volumeSnapshotClassName: {type: string}
              source:
                type: object
                oneOf: [{required: [persistentVolumeClaimName]}, {required: [volumeSnapshotContentName]}]
                properties: {persistentVolumeClaimName: {type: string}, volumeSnapshotContentName: {type: string}}
          status:
            type: object
            properties:
              boundVolumeSnapshotContentName: {type: string}
              creationTime: {type: string, format: date-time}
              readyToUse: {type: boolean}
              restoreSize: {type: string}
              error: {type: object, properties: {time: {type: string, format: date-time}, message: {type: string}}}
`

const snapshotClassesDefinition = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: volumesnapshotclasses.snapshot.storage.k8s.io
  annotations: {api-approved.kubernetes.io: "https://github.com/kubernetes-csi/external-snapshotter/pull/814"}
spec:
  group: snapshot.storage.k8s.io
  names: {plural: volumesnapshotclasses, singular: volumesnapshotclass, kind: VolumeSnapshotClass, listKind: VolumeSnapshotClassList, shortNames: [vsclass]}
  scope: Cluster
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        required: [deletionPolicy, driver]
        properties:
          deletionPolicy: {type: string, enum: [Delete, Retain]}
          driver: {type: string}
          parameters: {type: object, additionalProperties: {type: string}}
`

const hostSnapshotClass = `
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshotClass
metadata: {name: fast}
driver: csi.vendor.example
deletionPolicy: Delete
parameters: {csi.storage.k8s.io/snapshotter-secret-name: vendor-secret}
`

var (
	snapshots       = schema.GroupVersionResource{Group: policy.SnapshotGroup, Version: "v1", Resource: policy.SnapshotResource}
	snapshotClasses = schema.GroupVersionResource{Group: policy.SnapshotGroup, Version: "v1", Resource: policy.SnapshotClasses}
)

func snapshot(name, spec string) string {
	return "apiVersion: snapshot.storage.k8s.io/v1\nkind: VolumeSnapshot\nmetadata: {name: " + name + "}\nspec: " + spec + "\n"
}

// offerSnapshots gives the tenant a plan with the class "fast" of a host that has more.
func (c customWorld) offerSnapshots() {
	c.t.Helper()
	offerStorage(c.t)
	c.offer("storageClasses: [local]\nsnapshotClasses: [fast]\n")
	for _, text := range []string{hostSnapshotClass, strings.ReplaceAll(hostSnapshotClass, "fast", "gold")} {
		u := parse(c.t, text)
		if _, err := c.host.Resource(snapshotClasses).Create(c.t.Context(), u, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			c.t.Fatal(err)
		}
	}
	c.counted("count/volumesnapshots.snapshot.storage.k8s.io")
	c.t.Cleanup(func() { w.syncer().SetCustomResources(nil) })
}

// A snapshot goes to the host, comes back with what its driver says, and a claim
// begins as it was.
func TestSnapshots(t *testing.T) {
	c := newCustomWorld(t)
	c.offerSnapshots()
	ns := namespace(t)
	own, host := c.tenant.Resource(snapshots).Namespace(ns), c.host.Resource(snapshots).Namespace(acme.HostNamespace)
	view := c.waitObject(c.tenant.Resource(snapshotClasses), "fast", "the class", func(*unstructured.Unstructured) bool { return true })
	if text := string(must(json.Marshal(view.Object))); at(view, "driver") != translate.StorageDriver || at(view, "deletionPolicy") != "Delete" || strings.Contains(text, "vendor") {
		t.Errorf("the class is %s", text)
	}
	if _, err := c.tenant.Resource(snapshotClasses).Get(t.Context(), "gold", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("a class that is not offered: %v", err)
	}

	makeClaim(t, storageClaim(ns, "data"))
	made := c.make(own, snapshot("before", "{source: {persistentVolumeClaimName: data}}"))
	name := hostName(ns, "before")
	onHost := c.waitObject(host, name, "the host's snapshot", func(*unstructured.Unstructured) bool { return true })
	want := `{"source":{"persistentVolumeClaimName":"` + hostName(ns, "data") + `"},"volumeSnapshotClassName":"fast"}`
	if got := string(must(json.Marshal(onHost.Object["spec"]))); got != want {
		t.Errorf("on the host: %s, want %s", got, want)
	}
	// What the host's driver says of it.
	patch(t, host, name, `{"status": {"readyToUse": false, "boundVolumeSnapshotContentName": "the-hosts", "error": {"message": "no `+name+` of `+string(onHost.GetUID())+` in `+acme.HostNamespace+`"}}}`, "status")
	c.waitObject(own, "before", "the error", func(u *unstructured.Unstructured) bool {
		return at(u, "status", "error", "message") == "no before of "+string(made.GetUID())+" in "+ns && at(u, "status", "boundVolumeSnapshotContentName") == "snapcontent-"+string(made.GetUID())
	})
	patch(t, host, name, `{"status": {"readyToUse": true, "restoreSize": "1Gi", "error": null}}`, "status")
	ready := func(u *unstructured.Unstructured) bool {
		return at(u, "status", "readyToUse") == true && at(u, "status", "restoreSize") == "1Gi" && at(u, "status", "error") == nil &&
			at(u, "status", "boundVolumeSnapshotContentName") == "snapcontent-"+string(made.GetUID())
	}
	c.waitObject(own, "before", "the end of the snapshot", ready)
	// What the tenant says of it is put right.
	patch(t, own, "before", `{"status": {"restoreSize": "9Ti", "boundVolumeSnapshotContentName": "snapcontent-of-another"}}`, "status")
	c.waitObject(own, "before", "the repair of the status", ready)

	claimFromSnapshot(t, c, ns)
	for _, s := range []string{"before", "later"} {
		if err := own.Delete(t.Context(), s, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		c.gone(own, s, "the end of "+s)
		c.gone(host, hostName(ns, s), "the end on the host of "+s)
	}
}

func makeClaim(t *testing.T, claim *corev1.PersistentVolumeClaim) {
	t.Helper()
	if _, err := w.tenant.CoreV1().PersistentVolumeClaims(claim.Namespace).Create(t.Context(), claim, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// fromSnapshot is a claim whose volume begins as a snapshot.
func fromSnapshot(ns, name, snapshot string) *corev1.PersistentVolumeClaim {
	claim := storageClaim(ns, name)
	claim.Spec.DataSource = &corev1.TypedLocalObjectReference{APIGroup: ptr.To(policy.SnapshotGroup), Kind: policy.SnapshotKind, Name: snapshot}
	return claim
}

// claimFromSnapshot: a claim names the host's snapshot on the host, and one whose
// snapshot is not there waits for it.
func claimFromSnapshot(t *testing.T, c customWorld, ns string) {
	t.Helper()
	makeClaim(t, fromSnapshot(ns, "early", "later"))
	makeClaim(t, fromSnapshot(ns, "restored", "before"))
	waitSource := func(claim, snapshot string) {
		t.Helper()
		wait(t, "the host claim of "+claim, func() (bool, any) {
			hostClaim, err := w.host.CoreV1().PersistentVolumeClaims(acme.HostNamespace).Get(t.Context(), hostName(ns, claim), metav1.GetOptions{})
			if err != nil {
				return false, err
			}
			s, ref := hostClaim.Spec.DataSource, hostClaim.Spec.DataSourceRef
			return s != nil && ref != nil && s.Kind == policy.SnapshotKind && s.Name == hostName(ns, snapshot) && ref.Name == s.Name && ref.Namespace == nil, hostClaim.Spec
		})
	}
	waitSource("restored", "before")
	told(t, ns, "WaitForSnapshot", "later")
	if _, err := w.host.CoreV1().PersistentVolumeClaims(acme.HostNamespace).Get(t.Context(), hostName(ns, "early"), metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("a claim before its snapshot: %v", err)
	}
	c.make(c.tenant.Resource(snapshots).Namespace(ns), snapshot("later", "{volumeSnapshotClassName: fast, source: {persistentVolumeClaimName: data}}"))
	waitSource("early", "later")
}

// What a hostile tenant writes leads to no snapshot of another's claim, to nothing that
// lies on the host's storage, and to no parameters of its own.
func TestHostileSnapshots(t *testing.T) {
	c := newCustomWorld(t)
	c.offerSnapshots()
	ns := namespace(t)
	own, host := c.tenant.Resource(snapshots).Namespace(ns), c.host.Resource(snapshots).Namespace(acme.HostNamespace)
	victim := storageClaim("default", "victim") // another's, as far as the tenant goes
	if _, err := w.host.CoreV1().PersistentVolumeClaims("default").Create(t.Context(), victim, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = w.host.CoreV1().PersistentVolumeClaims("default").Delete(t.Context(), "victim", metav1.DeleteOptions{}) // it ends with the world
	})
	class := strings.NewReplacer("fast", "mine", "vendor-secret", "victim").Replace(hostSnapshotClass)
	c.make(c.tenant.Resource(snapshotClasses), class)
	refused := map[string]string{
		"content":   "{source: {volumeSnapshotContentName: snapcontent-of-another}}",
		"gold":      "{volumeSnapshotClassName: gold, source: {persistentVolumeClaimName: data}}",
		"mine":      "{volumeSnapshotClassName: mine, source: {persistentVolumeClaimName: data}}",
		"elsewhere": "{source: {persistentVolumeClaimName: default/victim}}",
	}
	c.judged(parse(t, snapshot("good", "{source: {persistentVolumeClaimName: data}}")), "")
	for name, spec := range refused {
		made := c.make(own, snapshot(name, spec))
		c.judged(made, "spec.")
		wait(t, "event on "+name, func() (bool, any) {
			events, err := w.tenant.CoreV1().Events(ns).List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + name})
			if err != nil || len(events.Items) == 0 {
				return false, err
			}
			return events.Items[0].Reason == "NotOnHost" && strings.Contains(events.Items[0].Message, "[custom-resource-fields]"), events.Items
		})
	}
	// By the same way what is the tenant's own gets there: as a name that no other has.
	c.make(own, snapshot("victim", "{source: {persistentVolumeClaimName: victim}}"))
	got := c.waitObject(host, hostName(ns, "victim"), "the tenant's own", func(*unstructured.Unstructured) bool { return true })
	if source := at(got, "spec", "source", "persistentVolumeClaimName"); source != hostName(ns, "victim") {
		t.Errorf("the snapshot is of %v", source)
	}
	for name := range refused {
		if _, err := host.Get(t.Context(), hostName(ns, name), metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("%s is on the host: %v", name, err)
		}
	}
	if list, err := c.host.Resource(snapshotClasses).List(t.Context(), metav1.ListOptions{}); err != nil || len(list.Items) != 2 {
		t.Errorf("classes of the host: %v, %d", err, len(list.Items))
	}
}

// TestHostRefusesSnapshots writes to the host as the tenant's own identity there, as a
// syncer that somebody has taken over would.
func TestHostRefusesSnapshots(t *testing.T) {
	c := newCustomWorld(t)
	c.offerSnapshots()
	config := quick(hostConfig)
	config.Impersonate.UserName = tenant.WriteUser(acme.HostNamespace)
	confused, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	api := confused.Resource(snapshots).Namespace(acme.HostNamespace)
	make := func(name string, change func(*unstructured.Unstructured)) error {
		u := parse(t, snapshot(name, "{volumeSnapshotClassName: fast, source: {persistentVolumeClaimName: x}}"))
		labels, annotations := tenant.Owner{Tenant: acme.ID, Name: tenant.Name{Namespace: "x", Name: name}, UID: "u"}.Marks()
		labels[tenant.LabelManagedBy] = "test" // the syncer would remove it
		u.SetLabels(labels)
		u.SetAnnotations(annotations)
		change(u)
		_, err := api.Create(t.Context(), u, metav1.CreateOptions{})
		return err
	}
	wait(t, "a snapshot as the syncer makes them", func() (bool, any) {
		err := make("good", func(*unstructured.Unstructured) {})
		return err == nil, err
	})
	for name, change := range map[string]func(*unstructured.Unstructured){
		"class": func(u *unstructured.Unstructured) { setField(t, u, "gold", "spec", "volumeSnapshotClassName") },
		"no-class": func(u *unstructured.Unstructured) {
			unstructured.RemoveNestedField(u.Object, "spec", "volumeSnapshotClassName")
		},
		"content": func(u *unstructured.Unstructured) {
			unstructured.RemoveNestedField(u.Object, "spec", "source", "persistentVolumeClaimName")
			setField(t, u, "snapcontent-of-another", "spec", "source", "volumeSnapshotContentName")
		},
		"mark": func(u *unstructured.Unstructured) {
			setField(t, u, "another", "metadata", "labels", tenant.LabelTenant)
		},
		"label":      func(u *unstructured.Unstructured) { setField(t, u, "own", "metadata", "labels", "tenants") },
		"annotation": func(u *unstructured.Unstructured) { setField(t, u, "own", "metadata", "annotations", "tenants") },
	} {
		if err := make("bad-"+name, change); err == nil || !strings.Contains(err.Error(), "ValidatingAdmissionPolicy 'sublet-tenant-snapshots'") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := api.Delete(t.Context(), "good", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	contents := confused.Resource(schema.GroupVersionResource{Group: policy.SnapshotGroup, Version: "v1", Resource: "volumesnapshotcontents"})
	if _, err := contents.List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("what lies on the host's storage: %v", err)
	}
}

func setField(t *testing.T, u *unstructured.Unstructured, value string, path ...string) {
	t.Helper()
	if err := unstructured.SetNestedField(u.Object, value, path...); err != nil {
		t.Fatal(err)
	}
}
