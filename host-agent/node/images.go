package node

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/platforms"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"sublet.dev/isolation/tenant"
)

// The images that every node brings along.
const (
	// PauseImage holds every pod's namespaces.
	PauseImage = tenant.Domain + "/pause:1"
	// CanaryImage tries, for the audit, what a pod can do.
	CanaryImage = tenant.Domain + "/canary:1"
)

// criNamespace is where the kubelet's images and containers are in containerd.
const criNamespace = "k8s.io"

// visibleLimit is how long containerd may take to show an imported image to the
// kubelet; it does so when it sees its own event.
const visibleLimit = 20 * time.Second

// Image is an image on the node.
type Image struct {
	Names []string `json:"names"`
	// ID is the digest of its configuration, as the kubelet shows it.
	ID   string `json:"id"`
	Size uint64 `json:"size"`
}

// Import reads a tar of an OCI layout, or of `docker save`, into the node's store
// and returns the images that a pod can use from now on. An image without a name
// is an error: no pod could ask for it.
func Import(ctx context.Context, l Layout, tar io.Reader) ([]Image, error) {
	client, err := containerd.New(l.Socket())
	if err != nil {
		return nil, fmt.Errorf("connect to containerd: %w", err)
	}
	defer client.Close()
	ctx = namespaces.WithNamespace(ctx, criNamespace)
	imported, err := client.Import(ctx, tar, containerd.WithImportPlatform(platforms.Only(platforms.DefaultSpec())))
	if err != nil {
		return nil, fmt.Errorf("read the image: %w; give a whole tar archive, not compressed, that `docker save NAME:TAG` wrote or that holds an OCI layout", err)
	}
	if len(imported) == 0 {
		return nil, fmt.Errorf("read the image: it has no name; save it by name and tag, for instance with `docker save NAME:TAG`")
	}
	var images []Image
	for _, i := range imported {
		if err := containerd.NewImage(client, i).Unpack(ctx, ""); err != nil {
			return nil, fmt.Errorf("unpack %s: %w", i.Name, err)
		}
		image, err := visible(ctx, l, i.Name)
		if err != nil {
			return nil, err
		}
		images = append(images, image)
	}
	return images, nil
}

// visible waits until the kubelet would find an image.
func visible(ctx context.Context, l Layout, name string) (Image, error) {
	conn, err := Dial(l)
	if err != nil {
		return Image{}, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, visibleLimit, fmt.Errorf("containerd does not show %s after %s", name, visibleLimit))
	defer cancel()
	client := runtimev1.NewImageServiceClient(conn)
	var found Image
	err = poll(ctx, func() (bool, error) {
		s, err := client.ImageStatus(ctx, &runtimev1.ImageStatusRequest{Image: &runtimev1.ImageSpec{Image: name}})
		if err != nil || s.Image == nil {
			return false, err
		}
		found = imageOf(s.Image)
		return true, nil
	})
	return found, err
}

// Images lists the node's images by name.
func Images(ctx context.Context, l Layout) ([]Image, error) {
	conn, err := Dial(l)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	list, err := runtimev1.NewImageServiceClient(conn).ListImages(ctx, &runtimev1.ListImagesRequest{})
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	images := make([]Image, 0, len(list.Images))
	for _, i := range list.Images {
		images = append(images, imageOf(i))
	}
	slices.SortFunc(images, func(a, b Image) int { return strings.Compare(strings.Join(a.Names, " "), strings.Join(b.Names, " ")) })
	return images, nil
}

func imageOf(i *runtimev1.Image) Image { return Image{Names: i.RepoTags, ID: i.Id, Size: i.Size} }

// ImportOwn imports the images that the node brings along.
func ImportOwn(ctx context.Context, l Layout) error {
	for _, name := range []string{"images/pause.tar", "images/canary.tar"} {
		f, err := os.Open(l.bin(name))
		if err != nil {
			return fmt.Errorf("open an image of the node: %w", err)
		}
		_, err = Import(ctx, l, f)
		_ = f.Close() // only read
		if err != nil {
			return fmt.Errorf("%s: %w", l.bin(name), err)
		}
	}
	return nil
}
