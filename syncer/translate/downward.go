package translate

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"sublet.dev/isolation/tenant"
)

// nodeKeys are the field paths whose value is known only once the pod has a node,
// and the keys of the ConfigMap that gives it. The ConfigMap is made when the host
// has scheduled the pod; until it is there the kubelet does not start the container.
var nodeKeys = map[string]string{
	"spec.nodeName":  "nodeName",
	"status.hostIP":  "hostIP",
	"status.hostIPs": "hostIPs",
}

// marked are the field paths whose value every host pod carries as a mark.
var marked = map[string]string{
	"metadata.name":      tenant.AnnotationName,
	"metadata.namespace": tenant.AnnotationNamespace,
	"metadata.uid":       tenant.AnnotationUID,
}

// field returns the host's reference to what the tenant's reference shows. The
// value stands in an annotation of ours, so that the kubelet keeps volumes fresh
// and values are never taken for references to variables. The pod's addresses are
// the same on both sides.
func (b *podBuilder) field(from *corev1.ObjectFieldSelector) *corev1.ObjectFieldSelector {
	path := from.FieldPath
	if path == "status.podIP" || path == "status.podIPs" {
		return from
	}
	key, ok := marked[path]
	if !ok {
		var value string
		if key, value, ok = b.value(path); ok {
			b.annotations[key] = value
		}
	}
	return &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: fmt.Sprintf("metadata.annotations['%s']", key)}
}

// value returns the annotation for a field path and the value for it; false when
// the path has no value, which the kubelet shows as an empty one.
func (b *podBuilder) value(path string) (key, value string, ok bool) {
	hash := sha256.Sum256([]byte(path))
	key = tenant.AnnotationField + hex.EncodeToString(hash[:8])
	object := &b.tenantPod.ObjectMeta
	switch path {
	case "metadata.labels":
		return tenant.AnnotationLabels, formatMap(object.Labels), true
	case "metadata.annotations":
		return tenant.AnnotationAnnotations, formatMap(object.Annotations), true
	case "spec.serviceAccountName":
		return key, b.tenantPod.Spec.ServiceAccountName, true
	}
	if k, found := subscript(path, "metadata.labels"); found {
		value, ok = object.Labels[k]
	} else if k, found := subscript(path, "metadata.annotations"); found {
		value, ok = object.Annotations[k]
	}
	return key, value, ok
}

func subscript(path, field string) (key string, ok bool) {
	key, found := strings.CutPrefix(path, field+"['")
	if !found {
		return "", false
	}
	return strings.CutSuffix(key, "']")
}

// formatMap gives a map the form that the downward API shows: a line of key="value"
// for each key, in order, quoted as in Go.
func formatMap(m map[string]string) string {
	lines := make([]string, 0, len(m))
	for k, v := range m {
		lines = append(lines, k+"="+strconv.Quote(v))
	}
	slices.SortFunc(lines, func(a, b string) int {
		ka, _, _ := strings.Cut(a, "=")
		kb, _, _ := strings.Cut(b, "=")
		return strings.Compare(ka, kb)
	})
	return strings.Join(lines, "\n")
}

// NodeValues returns the host ConfigMap with what the pod's containers want to
// know of its node, or nil when they do not, or when it has none yet.
func (t Translation) NodeValues(tenantPod, hostPod *corev1.Pod) *corev1.ConfigMap {
	if hostPod == nil || hostPod.Spec.NodeName == "" || !wantsNode(&tenantPod.Spec) {
		return nil
	}
	name := t.Tenant.ID.NodeName(hostPod.Spec.NodeName)
	address := NodeAddress(name)
	return &corev1.ConfigMap{
		ObjectMeta: t.hostMeta(tenantPod, SuffixNode),
		Data:       map[string]string{"nodeName": name, "hostIP": address, "hostIPs": address},
	}
}

func wantsNode(spec *corev1.PodSpec) bool {
	wants := false
	eachContainer(spec, func(c *corev1.Container) {
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.FieldRef != nil {
				_, found := nodeKeys[e.ValueFrom.FieldRef.FieldPath]
				wants = wants || found
			}
		}
	})
	return wants
}

// eachContainer calls f for every container of every sort.
func eachContainer(spec *corev1.PodSpec, f func(*corev1.Container)) {
	for i := range spec.InitContainers {
		f(&spec.InitContainers[i])
	}
	for i := range spec.Containers {
		f(&spec.Containers[i])
	}
	for i := range spec.EphemeralContainers {
		f((*corev1.Container)(&spec.EphemeralContainers[i].EphemeralContainerCommon))
	}
}
