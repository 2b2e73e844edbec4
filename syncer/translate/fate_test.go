package translate

import (
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestFates: each field of a pod has the fate that the table gives it, forced ones
// always, and refusals have a rule.
func TestFates(t *testing.T) {
	pod := plainPod()
	pod.Spec.HostNetwork, pod.Spec.Priority = true, new(int32)
	*pod.Spec.Priority = 7
	pod.Spec.NodeSelector = map[string]string{"a": "b"}
	pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "A", Value: "b"}}
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{SELinuxOptions: &corev1.SELinuxOptions{Level: "s0"}}
	pod.Spec.NodeName = "view"
	got := map[string]Fate{}
	for _, f := range (Translation{Tenant: testTenant, Lookup: nothing{}, Data: nothing{}}).Fates(pod) {
		if _, twice := got[f.Field]; twice {
			t.Errorf("%s is told twice", f.Field)
		}
		got[f.Field] = f
	}
	for field, want := range map[string]string{
		"spec.containers[0].name": "copied", "spec.containers[0].image": "copied", "spec.containers[0].env[0].value": "copied",
		"spec.nodeSelector": "translated", "spec.runtimeClassName": "forced", "spec.schedulerName": "forced",
		"spec.priority": "translated", "spec.nodeName": "dropped", "spec.hostNetwork": "refused", "spec.securityContext.seLinuxOptions": "dropped",
	} {
		if got[field].Fate != want {
			t.Errorf("%s: %+v, want %s", field, got[field], want)
		}
	}
	for _, f := range got {
		if (f.Fate == "refused") != (f.Rule != "" && f.Reason != "") {
			t.Errorf("%+v", f)
		}
	}
	for _, field := range []string{"spec.containers", "spec.containers[0].env", "spec.hostPID", "spec.volumes"} {
		if f, ok := got[field]; ok {
			t.Errorf("told of %+v", f)
		}
	}
}

// TestFatesAgree: whatever the table refuses, Fates says so, and for every field of a
// spec that is filled it says something.
func TestFatesAgree(t *testing.T) {
	for i := range reflect.TypeFor[corev1.PodSpec]().NumField() {
		field := reflect.TypeFor[corev1.PodSpec]().Field(i)
		pod := plainPod()
		fill(reflect.ValueOf(&pod.Spec).Elem().Field(i))
		if unset(reflect.ValueOf(&pod.Spec).Elem().Field(i)) {
			continue // a struct: its fields have tests of their own
		}
		fates := Translation{Tenant: testTenant, Lookup: nothing{}, Data: nothing{}}.Fates(pod)
		for _, r := range refusals(&pod.Spec) {
			found := false
			for _, f := range fates {
				found = found || f.Field == r.Field && f.Fate == "refused"
			}
			if !found {
				t.Errorf("%s is refused, and Fates says %+v", field.Name, fates)
			}
		}
	}
}
