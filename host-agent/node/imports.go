package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"google.golang.org/grpc"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"sublet.dev/isolation/tenant"
)

// importedLabel is on what containerd has under an imported image's name, and holds the
// image's ID: should another image come under the name, it is not the one.
const importedLabel = tenant.Domain + "/imported"

// An image with this label is one that the kubelet never removes to make space: an
// imported one may exist nowhere else. The label is of containerd's CRI service.
const pinnedLabel, pinned = "io.cri-containerd.pinned", "pinned"

// ErrNotImported is why nothing was removed.
var ErrNotImported = errors.New("no image was imported under this name")

// Imports knows which images are the node's own because they were imported. It is kept
// by containerd, with the images.
type Imports struct{ images images.Store }

// NewImports asks containerd, over a connection from [Dial].
func NewImports(conn *grpc.ClientConn) (Imports, error) {
	client, err := containerd.NewWithConn(conn)
	if err != nil {
		return Imports{}, fmt.Errorf("make a client of containerd: %w", err)
	}
	return Imports{client.ImageService()}, nil
}

// ID returns the ID of the image that was imported under a name, which may be as short
// as a pod may give it; "" when none was.
func (i Imports) ID(ctx context.Context, name string) (string, error) {
	image, err := i.get(ctx, name)
	if errors.Is(err, ErrNotImported) {
		return "", nil
	}
	return image.Labels[importedLabel], err
}

// get returns what was imported under a name, or ErrNotImported.
func (i Imports) get(ctx context.Context, name string) (images.Image, error) {
	full, err := reference.ParseDockerRef(name)
	if err != nil {
		return images.Image{}, fmt.Errorf("%w: %w", ErrNotImported, err)
	}
	image, err := i.images.Get(namespaces.WithNamespace(ctx, criNamespace), full.String())
	switch {
	case errdefs.IsNotFound(err):
		return images.Image{}, ErrNotImported
	case err != nil:
		return images.Image{}, fmt.Errorf("ask containerd for %s: %w", full, err)
	case image.Labels[importedLabel] == "":
		return images.Image{}, ErrNotImported
	}
	return image, nil
}

// mark has an image be the one that was imported under its name.
func mark(ctx context.Context, store images.Store, i images.Image, id string) error {
	i.Labels = map[string]string{importedLabel: id, pinnedLabel: pinned}
	if _, err := store.Update(ctx, i, "labels."+importedLabel, "labels."+pinnedLabel); err != nil {
		return fmt.Errorf("mark %s as imported: %w", i.Name, err)
	}
	return nil
}

// Remove takes an imported image's name from the node: from now on a pod that uses the
// name has it pulled. Pods that run with the image go on. It returns ErrNotImported for
// a name that was not imported, and refuses the images that the node brings along.
func Remove(ctx context.Context, l Layout, name string) error {
	conn, err := Dial(l)
	if err != nil {
		return err
	}
	defer conn.Close()
	imports, err := NewImports(conn)
	if err != nil {
		return err
	}
	image, err := imports.get(ctx, name)
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	if slices.Contains([]string{PauseImage, CanaryImage}, image.Name) {
		return fmt.Errorf("remove %s: the node needs it and brings it along", name)
	}
	if err := imports.images.Delete(namespaces.WithNamespace(ctx, criNamespace), image.Name); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return awaitImage(ctx, l, image.Name, fmt.Sprintf("containerd still shows %s", name), func(i *runtimev1.Image) bool { return i == nil })
}
