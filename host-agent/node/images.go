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
	"github.com/containerd/containerd/v2/core/images"
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

// visibleLimit is how long containerd may take to show the kubelet that an image was
// imported or removed; it does so when it sees its own event.
const visibleLimit = 20 * time.Second

// Image is an image on the node.
type Image struct {
	Names []string `json:"names"`
	// ID is the digest of its configuration, as the kubelet shows it.
	ID   string `json:"id"`
	Size uint64 `json:"size"`
}

// Import reads a tar of an OCI layout, or of `docker save`, into the node's store
// and returns the images that a pod can use from now on: each is the node's under its
// name ([Imports]), whatever any registry has, until another is imported under it or it is
// removed. An image without a name is an error: no pod could ask for it.
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
	var kept []Image
	for _, i := range imported {
		image, err := keep(ctx, l, client, i)
		if err != nil {
			return nil, err
		}
		kept = append(kept, image)
	}
	return kept, nil
}

// keep makes an image that containerd has read one that pods can use, and the node's own.
func keep(ctx context.Context, l Layout, client *containerd.Client, i images.Image) (Image, error) {
	image := containerd.NewImage(client, i)
	if err := image.Unpack(ctx, ""); err != nil {
		return Image{}, fmt.Errorf("unpack %s: %w", i.Name, err)
	}
	config, err := image.Config(ctx)
	if err != nil {
		return Image{}, fmt.Errorf("read the configuration of %s: %w", i.Name, err)
	}
	id := config.Digest.String()
	if err := mark(ctx, client.ImageService(), i, id); err != nil {
		return Image{}, err
	}
	return visible(ctx, l, i.Name, id)
}

// visible waits until the kubelet would find an image by its name, and would not remove
// it to make space.
func visible(ctx context.Context, l Layout, name, id string) (Image, error) {
	var found Image
	err := awaitImage(ctx, l, name, fmt.Sprintf("containerd does not show %s as %s", name, id), func(i *runtimev1.Image) bool {
		found = imageOf(i)
		return found.ID == id && i.GetPinned()
	})
	return found, err
}

// awaitImage waits until what the kubelet would find by a name, nil for nothing, is as
// it shall be. otherwise is what the error says when it does not become so.
func awaitImage(ctx context.Context, l Layout, name, otherwise string, so func(*runtimev1.Image) bool) error {
	conn, err := Dial(l)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, visibleLimit, fmt.Errorf("%s after %s", otherwise, visibleLimit))
	defer cancel()
	client := runtimev1.NewImageServiceClient(conn)
	return poll(ctx, func() (bool, error) {
		s, err := client.ImageStatus(ctx, &runtimev1.ImageStatusRequest{Image: &runtimev1.ImageSpec{Image: name}})
		if err != nil {
			return false, err
		}
		return so(s.Image), nil
	})
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
	all := make([]Image, 0, len(list.Images))
	for _, i := range list.Images {
		all = append(all, imageOf(i))
	}
	slices.SortFunc(all, func(a, b Image) int { return strings.Compare(strings.Join(a.Names, " "), strings.Join(b.Names, " ")) })
	return all, nil
}

func imageOf(i *runtimev1.Image) Image {
	return Image{Names: i.GetRepoTags(), ID: i.GetId(), Size: i.GetSize()}
}

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
