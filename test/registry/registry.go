// Package registry serves a test's images as a registry on the machine, and says to a
// node, as containerd takes it, where that is.
//
//	archive with an OCI layout --Serve--> http://127.0.0.1:PORT/v2/... --hosts.toml--> a node's pull
//
// It serves for the time of one test, everybody or one member, and never asks another
// registry.
package registry

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
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

// Member is who may use a registry that is not for everybody.
type Member struct{ User, Password string }

// Serve has a registry on the machine serve the images of archives, by their names
// without their own registry's, until the test ends. It returns its address.
func Serve(t testing.TB, archives ...string) string {
	t.Helper()
	return serve(t, newRegistry(t), nil, archives)
}

// ServeTo is [Serve] for one member; others are asked who they are and get nothing.
func ServeTo(t testing.TB, member Member, archives ...string) string {
	t.Helper()
	images := newRegistry(t)
	asks := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != member.User || password != member.Password {
			w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
			http.Error(w, "for its member only", http.StatusUnauthorized)
			return
		}
		images.ServeHTTP(w, r)
	})
	return serve(t, asks, url.UserPassword(member.User, member.Password), archives)
}

func newRegistry(t testing.TB) http.Handler {
	return registry.New(registry.WithBlobHandler(registry.NewDiskBlobHandler(t.TempDir())), registry.Logger(log.New(io.Discard, "", 0)))
}

// serve serves a registry once the images of archives are in it, which a member brings.
func serve(t testing.TB, handler http.Handler, member *url.Userinfo, archives []string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, served := &http.Server{Handler: handler}, make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	for _, archive := range archives {
		if err := push(t, archive, &url.URL{Scheme: "http", User: member, Host: l.Addr().String()}); err != nil {
			t.Fatalf("serve %s: %v", archive, err)
		}
	}
	return l.Addr().String()
}

// Tell has the nodes of a data directory ask the registry at an address for the images
// of a host, or of all others with "_default", and if that fails at the next. It returns
// the file that says so.
func Tell(t testing.TB, registries, host string, addresses ...string) string {
	t.Helper()
	dir := filepath.Join(registries, host)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "hosts.toml")
	var text []byte
	for _, address := range addresses {
		text = fmt.Appendf(text, "[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", "http://"+address)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// push brings the images of an archive, which holds an OCI layout, to a registry, by
// their names without their own registry's.
func push(t testing.TB, archive string, to *url.URL) error {
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
		if err := pushImage(layout.Path(dir), d, to.JoinPath("v2", repository).String(), tag); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// pushImage sends what an image is made of, and its manifest last, as the OCI
// distribution specification says.
func pushImage(images layout.Path, d v1.Descriptor, to, tag string) error {
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
		if err := send(http.MethodPost, to+"/blobs/uploads/?digest="+part.Digest.String(), "application/octet-stream", blob); err != nil {
			return err
		}
	}
	raw, err := image.RawManifest()
	if err != nil {
		return err
	}
	return send(http.MethodPut, to+"/manifests/"+tag, string(d.MediaType), io.NopCloser(bytes.NewReader(raw)))
}

func send(method, to, contentType string, body io.ReadCloser) error {
	request, err := http.NewRequest(method, to, body)
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
		return fmt.Errorf("%s %s: %s", method, to, answer.Status)
	}
	return nil
}
