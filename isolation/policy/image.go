package policy

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"sublet.dev/isolation/tenant"
)

// fromRegistry says whether an image comes from a registry, or from a folder in one, such
// as "registry.example.org/team". An image that names no registry is one of docker.io,
// as for every container runtime
// (https://kubernetes.io/docs/concepts/containers/images/#image-names). What is written
// in another way than the registry is, is not from it.
func fromRegistry(image, registry string) bool {
	return strings.HasPrefix(fullImage(image), registry+"/")
}

// fullImage returns the name of an image with its registry.
func fullImage(image string) string {
	first, _, more := strings.Cut(image, "/")
	switch {
	case !more:
		return "docker.io/library/" + image
	case strings.ContainsAny(first, ".:") || first == "localhost" || strings.ToLower(first) != first:
		return image
	}
	return "docker.io/" + image
}

// ImageFrom is a CEL expression that holds if the image in a variable comes from the
// registry in another: what the policy says, for the host's API server.
func ImageFrom(image, registry string) string {
	first := image + ".split('/')[0]"
	named := fmt.Sprintf("%[1]s.contains('.') || %[1]s.contains(':') || %[1]s == 'localhost' || %[1]s.lowerAscii() != %[1]s", first)
	full := fmt.Sprintf("(!%[1]s.contains('/') ? 'docker.io/library/' + %[1]s : %[2]s ? %[1]s : 'docker.io/' + %[1]s)", image, named)
	return full + ".startsWith(" + registry + " + '/')"
}

// images refuses images that are not from the plan's registries. Those that come with
// Sublet are the provider's.
func (c *check) images(spec *corev1.PodSpec) {
	if len(c.offer.ImageRegistries) == 0 {
		return
	}
	for _, v := range containers(spec) {
		c.image(v.path+".image", v.Image)
	}
	for i, v := range spec.Volumes {
		if v.Image != nil {
			c.image(fmt.Sprintf("spec.volumes[%d].image.reference", i), v.Image.Reference)
		}
	}
}

func (c *check) image(field, image string) {
	from := func(registry string) bool { return fromRegistry(image, registry) }
	if !from(tenant.Domain) && !slices.ContainsFunc(c.offer.ImageRegistries, from) {
		c.refuse("image-registry", field, "%q is not from a registry that this cluster's plan has: use images from %q", image, c.offer.ImageRegistries)
	}
}
