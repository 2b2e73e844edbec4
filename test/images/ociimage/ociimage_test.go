package ociimage_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"path"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"sublet.dev/test/images/ociimage"
)

func image() ociimage.Image {
	return ociimage.Image{
		Name:       "sublet.dev/x:1",
		Entrypoint: []string{"/bin/x"},
		User:       "65532",
		Files:      []ociimage.File{{Path: "/bin/x", Mode: 0o755, Data: []byte("binary")}, {Path: "/bin/y", Mode: 0o644}},
	}
}

// unpack returns the files of a tar by name.
func unpack(t *testing.T, data []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

func decode(t *testing.T, data []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
}

func TestLayoutHoldsTogether(t *testing.T) {
	var b bytes.Buffer
	if err := ociimage.Write(&b, image()); err != nil {
		t.Fatal(err)
	}
	files := unpack(t, b.Bytes())
	get := func(d v1.Descriptor) []byte {
		data := files[path.Join("blobs/sha256", d.Digest.Encoded())]
		if digest.FromBytes(data) != d.Digest || int64(len(data)) != d.Size {
			t.Fatalf("blob %s (%s) is missing or other than described", d.Digest, d.MediaType)
		}
		return data
	}
	var index v1.Index
	decode(t, files["index.json"], &index)
	if got := index.Manifests[0].Annotations["io.containerd.image.name"]; got != "sublet.dev/x:1" {
		t.Errorf("the name for containerd is %q", got)
	}
	var manifest v1.Manifest
	decode(t, get(index.Manifests[0]), &manifest)
	var config v1.Image
	decode(t, get(manifest.Config), &config)
	if config.RootFS.DiffIDs[0] != manifest.Layers[0].Digest {
		t.Error("the configuration names another layer than the manifest")
	}
	layer := unpack(t, get(manifest.Layers[0]))
	if string(layer["bin/x"]) != "binary" || len(layer) != 3 {
		t.Errorf("layer holds %v", layer)
	}
}

// A base is the first layer, as it is; the image's own files come above it.
func TestBaseComesFirst(t *testing.T) {
	var b bytes.Buffer
	i := image()
	i.Base = []byte("a tar that somebody else made")
	if err := ociimage.Write(&b, i); err != nil {
		t.Fatal(err)
	}
	var manifest v1.Manifest
	var config v1.Image
	files := unpack(t, b.Bytes())
	blob := func(d v1.Descriptor) []byte { return files[path.Join("blobs/sha256", d.Digest.Encoded())] }
	var index v1.Index
	decode(t, files["index.json"], &index)
	decode(t, blob(index.Manifests[0]), &manifest)
	decode(t, blob(manifest.Config), &config)
	if len(manifest.Layers) != 2 || !bytes.Equal(blob(manifest.Layers[0]), i.Base) || len(unpack(t, blob(manifest.Layers[1]))) != 3 {
		t.Errorf("the layers are %v", manifest.Layers)
	}
	for n, l := range manifest.Layers {
		if config.RootFS.DiffIDs[n] != l.Digest {
			t.Errorf("the configuration names %s as layer %d, the manifest %s", config.RootFS.DiffIDs[n], n, l.Digest)
		}
	}
}

func TestSameInputSameBytes(t *testing.T) {
	var a, b bytes.Buffer
	if err := errors.Join(ociimage.Write(&a, image()), ociimage.Write(&b, image())); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("two runs gave different images")
	}
}

func TestRefuses(t *testing.T) {
	short, relative := image(), image()
	short.Name = "x"
	relative.Files[0].Path = "bin/x"
	for _, i := range []ociimage.Image{short, relative} {
		if err := ociimage.Write(io.Discard, i); err == nil {
			t.Errorf("%+v was accepted", i)
		}
	}
}
