package policy

import (
	"encoding/json"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// refusedFields are refused because nothing supports them yet. A field that a new
// Kubernetes brings is in no list: it is refused until somebody decides.
var refusedFields = decided("SchedulingGroup", "EvictionResponders")

func TestEveryFieldHasADecision(t *testing.T) {
	for name, c := range map[string]struct {
		v any
		f fields
	}{
		"PodSpec":            {corev1.PodSpec{}, podSpecFields},
		"PodSecurityContext": {corev1.PodSecurityContext{}, podSecurityContextFields},
		"Container":          {corev1.Container{}, containerFields},
		"SecurityContext":    {corev1.SecurityContext{}, securityContextFields},
	} {
		typ, seen := reflect.TypeOf(c.v), 0
		for i := range typ.NumField() {
			field := typ.Field(i).Name
			if c.f[field] {
				seen++
			} else if !refusedFields[field] {
				t.Errorf("%s.%s: nobody has decided about this field", name, field)
			}
		}
		if seen != len(c.f) {
			t.Errorf("%s: the list names %d fields that do not exist", name, len(c.f)-seen)
		}
	}
}

// Each type of volume on its own is refused unless it is in the list.
func TestEveryVolumeType(t *testing.T) {
	typ := reflect.TypeOf(corev1.VolumeSource{})
	for i := range typ.NumField() {
		var v corev1.Volume
		reflect.ValueOf(&v.VolumeSource).Elem().Field(i).Set(reflect.New(typ.Field(i).Type.Elem()))
		c := &check{}
		c.volumes([]corev1.Volume{v})
		if allowed := len(c.refusals) == 0; allowed != volumeTypes[typ.Field(i).Name] {
			t.Errorf("%s: allowed=%v: %v", typ.Field(i).Name, allowed, c.refusals)
		}
	}
}

// Whatever JSON a tenant sends: an answer, no panic, and never a pod that shares
// the host.
func FuzzCheckPod(f *testing.F) {
	f.Add([]byte(`{"spec":{"hostNetwork":true,"containers":[{"securityContext":{"privileged":true}}]}}`), true)
	f.Add([]byte(`{"spec":{"volumes":[{"hostPath":{"path":"/"}},{"projected":{"sources":[{}]}}],"initContainers":[{"lifecycle":{"preStop":{}}}]}}`), false)
	f.Add([]byte(`{"metadata":{"labels":{"":""}},"spec":{"os":{},"ephemeralContainers":[{"ports":[{}],"livenessProbe":{}}]}}`), false)
	f.Fuzz(func(t *testing.T, data []byte, baseline bool) {
		var pod corev1.Pod
		if json.Unmarshal(data, &pod) != nil {
			t.Skip("no pod")
		}
		l := Restricted
		if baseline {
			l = Baseline
		}
		spec := &pod.Spec
		dangerous := spec.HostNetwork || spec.HostPID || spec.HostIPC || spec.NodeName != ""
		for _, v := range spec.Volumes {
			dangerous = dangerous || v.HostPath != nil || v.CSI != nil
		}
		if r := CheckPod(&pod, l); dangerous && len(r) == 0 {
			t.Fatalf("allowed: %s", data)
		}
		CheckHostPod(&pod, l)
	})
}
