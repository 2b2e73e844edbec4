package kube

import (
	"context"
	"fmt"
	"strings"

	cri "k8s.io/cri-api/pkg/apis"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// An imported image is known to the kubelet by references that no other image has. The
// kubelet records who has pulled an image by its ID alone (KEP-2535), so that a pull of
// the same image under any other name would have every pod with the imported name asked
// for a pull of its own. It looks in its records for what it has found, not for what it
// was given: pods with credentials of their own leave nothing behind that others would
// be asked for.
const (
	foundRef = "imported/found/"
	givenRef = "imported/given/"
)

// ofRuntime returns the ID that a reference of an imported image is for, and any other
// reference as it is.
func ofRuntime(ref string) string {
	for _, prefix := range []string{foundRef, givenRef} {
		if id, ok := strings.CutPrefix(ref, prefix); ok {
			return id
		}
	}
	return ref
}

// forRuntime has a container's images be the runtime's.
func forRuntime(container *runtimev1.ContainerConfig) {
	if image := container.GetImage(); image != nil {
		image.Image = ofRuntime(image.Image)
	}
	for _, m := range container.GetMounts() {
		if image := m.GetImage(); image != nil {
			image.Image = ofRuntime(image.Image)
		}
	}
}

// keeping is an image service in which what was imported under a name stays what all
// pods get by that name: it is there without credentials, and no pull replaces it.
type keeping struct {
	cri.ImageManagerService
	// importedID is Kubelet.ImportedID.
	importedID func(ctx context.Context, name string) (string, error)
}

// imported returns the ID of the image that a name is for if it is the one that was
// imported under that name, and "" otherwise. Only an ID that was imported under the
// name counts: an image that somebody pulled is never taken for it.
func (s keeping) imported(ctx context.Context, name string, now *runtimev1.Image) (string, error) {
	if now == nil {
		return "", nil
	}
	id, err := s.importedID(ctx, name)
	if err != nil {
		return "", fmt.Errorf("ask whether %s was imported: %w", name, err)
	}
	if id != now.Id {
		return "", nil
	}
	return id, nil
}

// ImageStatus says which image a name is for.
func (s keeping) ImageStatus(ctx context.Context, image *runtimev1.ImageSpec, verbose bool) (*runtimev1.ImageStatusResponse, error) {
	status, err := s.ImageManagerService.ImageStatus(ctx, image, verbose)
	if err != nil {
		return nil, err
	}
	id, err := s.imported(ctx, image.GetImage(), status.GetImage())
	if err != nil {
		return nil, err
	}
	if id != "" {
		status.Image.Id = foundRef + id
	}
	return status, nil
}

// PullImage asks a registry for an image, except for one that was imported.
func (s keeping) PullImage(ctx context.Context, image *runtimev1.ImageSpec, auth *runtimev1.AuthConfig, pod *runtimev1.PodSandboxConfig) (string, error) {
	status, err := s.ImageManagerService.ImageStatus(ctx, image, false)
	if err != nil {
		return "", err
	}
	id, err := s.imported(ctx, image.GetImage(), status.GetImage())
	if err != nil {
		return "", err
	}
	if id != "" {
		return givenRef + id, nil
	}
	return s.ImageManagerService.PullImage(ctx, image, auth, pod)
}
