package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// tarTool understands what `kubectl cp` asks of a container's tar: `tar cf -
// PATH` writes an archive, `tar xmf - [-C DIR]` (and xf) unpacks one.
func tarTool(_ context.Context, args []string) error {
	if len(args) < 2 || args[1] != "-" {
		return fmt.Errorf("usage: tar cf - PATH | tar xmf - [-C DIR]")
	}
	switch strings.TrimPrefix(args[0], "-") {
	case "cf":
		if len(args) != 3 {
			return fmt.Errorf("usage: tar cf - PATH")
		}
		return pack(os.Stdout, args[2])
	case "xf", "xmf":
		dir := "."
		if len(args) == 4 && args[2] == "-C" {
			dir = args[3]
		}
		return unpack(os.Stdin, dir)
	}
	return fmt.Errorf("tar %s is not supported", args[0])
}

func pack(w io.Writer, root string) error {
	t := tar.NewWriter(w)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if !info.IsDir() && !info.Mode().IsRegular() {
			return nil // links and devices are not the quickstart's business
		}
		h, err := tar.FileInfoHeader(info, "")
		if err != nil {
			return err
		}
		h.Name = strings.TrimPrefix(path, "/")
		if err := t.WriteHeader(h); err != nil || info.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(t, f)
		return err
	})
	return errors.Join(err, t.Close())
}

// unpack writes the archive below dir; os.Root keeps every name in there.
func unpack(r io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		name := filepath.Clean(strings.TrimPrefix(h.Name, "/"))
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(name, h.FileInfo().Mode().Perm())
		case tar.TypeReg:
			err = unpackFile(root, name, h, t)
		}
		if err != nil {
			return err
		}
	}
}

func unpackFile(root *os.Root, name string, h *tar.Header, r io.Reader) error {
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, h.FileInfo().Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}
