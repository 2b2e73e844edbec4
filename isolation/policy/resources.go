package policy

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// resources are what a node's pods share by their requests and limits. All others
// (devices, huge pages) a node has a few of, and no plan can share them out.
var resources = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage}

// Resources returns the names of the resources that a pod on the host may ask for.
// The caller owns them.
func Resources() []corev1.ResourceName { return slices.Clone(resources) }

// CheckResources returns a refusal for each resource of the host that a pod asks for
// and no plan offers. A tenant's API takes such a pod, as any cluster without such
// nodes does; it must not get to the host, whose nodes may have them.
func CheckResources(spec *corev1.PodSpec) []Refusal {
	c := &check{}
	if r := spec.Resources; r != nil {
		c.resources("spec.resources", r)
	}
	for _, v := range containers(spec) {
		c.resources(v.path+".resources", &v.Resources)
	}
	for i, v := range spec.Volumes {
		if v.EmptyDir != nil && strings.HasPrefix(string(v.EmptyDir.Medium), string(corev1.StorageMediumHugePages)) {
			c.refuse("resources", fmt.Sprintf("spec.volumes[%d].emptyDir.medium", i), "huge pages of the nodes are not offered: use Memory")
		}
	}
	return c.refusals
}

func (c *check) resources(path string, r *corev1.ResourceRequirements) {
	for _, list := range []struct {
		path string
		of   corev1.ResourceList
	}{{path + ".limits", r.Limits}, {path + ".requests", r.Requests}} {
		for name := range list.of {
			if !slices.Contains(resources, name) {
				c.refuse("resources", list.path, "%q of the nodes is not offered: remove it", name)
			}
		}
	}
}
