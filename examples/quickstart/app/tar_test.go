package main

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestTarThereAndBack(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(src, "a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(src, "a/b/f"), []byte("content"), 0o640); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := pack(&archive, src); err != nil {
		t.Fatal(err)
	}
	if err := unpack(&archive, dst); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dst, src, "a/b/f"))
	if err != nil || string(got) != "content" {
		t.Fatalf("unpacked %q, %v", got, err)
	}
}

func TestUnpackStaysInItsFolder(t *testing.T) {
	dst := filepath.Join(t.TempDir(), "in")
	if err := os.Mkdir(dst, 0o755); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: "../out", Typeflag: tar.TypeReg, Size: 1, Mode: 0o600}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unpack(&archive, dst); err == nil {
		t.Error("a name with .. was unpacked without an error")
	}
	if _, err := os.Stat(filepath.Join(dst, "../out")); err == nil {
		t.Error("a file was written outside the folder")
	}
}
