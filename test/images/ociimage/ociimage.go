// Package ociimage writes container images from static binaries, without a
// registry, a daemon or a base image.
//
// Flow: [Write] packs the files of an [Image] into one layer, above a base if there
// is one, and wraps it in an OCI image layout, as a tar that containerd imports under the image's name. The
// same input gives the same bytes: times are zero, owners are root, files keep
// the order in which they were given.
//
// It never reads an image and never compresses: the images are small and local.
package ociimage

import (
	"archive/tar"
	"bytes"
	_ "crypto/sha256" // go-digest finds its algorithm among the registered ones
	"encoding/json"
	"fmt"
	"io"
	"path"
	"runtime"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// annotationName is where containerd's importer looks for an image's full name.
const annotationName = "io.containerd.image.name"

// Image is what an image consists of.
type Image struct {
	// Name is the full reference, "sublet.dev/canary:1".
	Name string
	// Entrypoint and Cmd are those of the image configuration.
	Entrypoint, Cmd []string
	// Env are the environment's lines, KEY=VALUE.
	Env []string
	// User is UID[:GID]; "" is root.
	User string
	// Base is a tar that becomes the first layer, below Files; none when empty.
	Base []byte
	// Files are the layer's files, in order. Folders are made as needed.
	Files []File
}

// File is one file of an image, owned by root.
type File struct {
	// Path is absolute inside the image.
	Path string
	// Mode holds the permission bits.
	Mode int64
	Data []byte
}

// blob is one content-addressed part of the layout.
type blob struct {
	desc v1.Descriptor
	data []byte
}

// Write writes image as a tar of an OCI image layout to w.
func Write(w io.Writer, image Image) error {
	if !strings.Contains(image.Name, ":") || !strings.Contains(image.Name, "/") {
		return fmt.Errorf("image name %q: give a full reference such as example.org/name:tag", image.Name)
	}
	layer, err := layerOf(image.Files)
	if err != nil {
		return err
	}
	layers := []blob{layer}
	if len(image.Base) > 0 {
		layers = []blob{newBlob(v1.MediaTypeImageLayer, image.Base), layer}
	}
	config, err := configOf(image, layers)
	if err != nil {
		return err
	}
	manifest, err := jsonBlob(v1.MediaTypeImageManifest, v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageManifest,
		Config:    config.desc,
		Layers:    descriptors(layers),
	})
	if err != nil {
		return err
	}
	return writeLayout(w, image.Name, manifest, append(layers, config)...)
}

func descriptors(blobs []blob) []v1.Descriptor {
	var all []v1.Descriptor
	for _, b := range blobs {
		all = append(all, b.desc)
	}
	return all
}

// configOf returns the image configuration. The layers are not compressed, so their
// digests are those of their content.
func configOf(image Image, layers []blob) (blob, error) {
	var contents []digest.Digest
	for _, l := range layers {
		contents = append(contents, l.desc.Digest)
	}
	return jsonBlob(v1.MediaTypeImageConfig, v1.Image{
		Platform: platform(),
		Config:   v1.ImageConfig{Entrypoint: image.Entrypoint, Cmd: image.Cmd, Env: image.Env, User: image.User, WorkingDir: "/"},
		RootFS:   v1.RootFS{Type: "layers", DiffIDs: contents},
	})
}

func platform() v1.Platform { return v1.Platform{Architecture: runtime.GOARCH, OS: "linux"} }

// layerOf packs files, with the folders they need, into a layer.
func layerOf(files []File) (blob, error) {
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	made := map[string]bool{".": true}
	for _, f := range files {
		name := strings.TrimPrefix(path.Clean(f.Path), "/")
		if !path.IsAbs(f.Path) || name == "" {
			return blob{}, fmt.Errorf("image file %q: the path must be absolute and name a file", f.Path)
		}
		if err := addFolders(t, made, path.Dir(name)); err != nil {
			return blob{}, err
		}
		if err := addFile(t, &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: f.Mode}, f.Data); err != nil {
			return blob{}, err
		}
	}
	if err := t.Close(); err != nil {
		return blob{}, fmt.Errorf("finish the layer: %w", err)
	}
	return newBlob(v1.MediaTypeImageLayer, b.Bytes()), nil
}

// addFolders adds dir and what is above it, once.
func addFolders(t *tar.Writer, made map[string]bool, dir string) error {
	if made[dir] {
		return nil
	}
	if err := addFolders(t, made, path.Dir(dir)); err != nil {
		return err
	}
	made[dir] = true
	return addFile(t, &tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}, nil)
}

func addFile(t *tar.Writer, h *tar.Header, data []byte) error {
	h.Size = int64(len(data))
	if err := t.WriteHeader(h); err != nil {
		return fmt.Errorf("add %s: %w", h.Name, err)
	}
	if _, err := t.Write(data); err != nil {
		return fmt.Errorf("add %s: %w", h.Name, err)
	}
	return nil
}

// writeLayout writes the layout whose only image is manifest.
func writeLayout(w io.Writer, name string, manifest blob, others ...blob) error {
	p := platform()
	manifest.desc.Platform = &p
	manifest.desc.Annotations = map[string]string{annotationName: name, v1.AnnotationRefName: name[strings.LastIndex(name, ":")+1:]}
	index, err := jsonBlob(v1.MediaTypeImageIndex, v1.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageIndex,
		Manifests: []v1.Descriptor{manifest.desc},
	})
	if err != nil {
		return err
	}
	layout, err := jsonBlob(v1.MediaTypeLayoutHeader, v1.ImageLayout{Version: v1.ImageLayoutVersion})
	if err != nil {
		return err
	}
	t := tar.NewWriter(w)
	files := []File{{Path: v1.ImageLayoutFile, Data: layout.data}, {Path: v1.ImageIndexFile, Data: index.data}}
	for _, b := range append(others, manifest) {
		files = append(files, File{Path: path.Join(v1.ImageBlobsDir, b.desc.Digest.Algorithm().String(), b.desc.Digest.Encoded()), Data: b.data})
	}
	for _, f := range files {
		if err := addFile(t, &tar.Header{Typeflag: tar.TypeReg, Name: f.Path, Mode: 0o644}, f.Data); err != nil {
			return err
		}
	}
	if err := t.Close(); err != nil {
		return fmt.Errorf("finish the image: %w", err)
	}
	return nil
}

func jsonBlob(mediaType string, v any) (blob, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return blob{}, fmt.Errorf("encode %s: %w", mediaType, err)
	}
	return newBlob(mediaType, data), nil
}

func newBlob(mediaType string, data []byte) blob {
	return blob{desc: v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}, data: data}
}
