package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// imageName is the annotation of an image in an archive with its whole name.
const imageName = "io.containerd.image.name"

// serveImages has a registry on the machine serve the images of archives, and has the
// node ask it for the images of every registry: tests whose pods always pull find
// theirs there. It ends with the test.
func serveImages(t *testing.T, archives []string, registries string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	handler := registry.New(registry.WithBlobHandler(registry.NewDiskBlobHandler(t.TempDir())), registry.Logger(log.New(io.Discard, "", 0)))
	server, served := &http.Server{Handler: handler}, make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	for _, archive := range archives {
		if err := push(t, archive, l.Addr().String()); err != nil {
			t.Fatalf("serve %s: %v", archive, err)
		}
	}
	dir := filepath.Join(registries, "_default")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	hosts := fmt.Sprintf("[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", "http://"+l.Addr().String())
	if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(hosts), 0o600); err != nil {
		t.Fatal(err)
	}
}

// push brings the images of an archive, which holds an OCI layout, to a registry, by
// their names without their own registry's.
func push(t *testing.T, archive, to string) error {
	t.Helper()
	dir, err := os.MkdirTemp(t.TempDir(), "layout-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if out, err := exec.Command("tar", "-xf", archive, "-C", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("unpack: %w: %s", err, out)
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	for _, d := range manifest.Manifests {
		_, path, _ := strings.Cut(d.Annotations[imageName], "/")
		repository, tag, _ := strings.Cut(path, ":")
		if err := pushImage(layout.Path(dir), d, "http://"+to+"/v2/"+repository, tag); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// pushImage sends what an image is made of, and its manifest last, as the OCI
// distribution specification says.
func pushImage(images layout.Path, d v1.Descriptor, url, tag string) error {
	image, err := images.Image(d.Digest)
	if err != nil {
		return err
	}
	manifest, err := image.Manifest()
	if err != nil {
		return err
	}
	for _, part := range append(manifest.Layers, manifest.Config) {
		blob, err := images.Blob(part.Digest)
		if err != nil {
			return err
		}
		if err := send(http.MethodPost, url+"/blobs/uploads/?digest="+part.Digest.String(), "application/octet-stream", blob); err != nil {
			return err
		}
	}
	raw, err := image.RawManifest()
	if err != nil {
		return err
	}
	return send(http.MethodPut, url+"/manifests/"+tag, string(d.MediaType), io.NopCloser(bytes.NewReader(raw)))
}

func send(method, url, contentType string, body io.ReadCloser) error {
	request, err := http.NewRequest(method, url, body)
	if err != nil {
		return errors.Join(err, body.Close())
	}
	request.Header.Set("Content-Type", contentType)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusCreated {
		return fmt.Errorf("%s %s: %s", method, url, answer.Status)
	}
	return nil
}
