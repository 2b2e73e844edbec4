// Command mkimage makes a container image of static binaries:
//
//	mkimage -o FILE -ref NAME:TAG [-base TAR] [-user UID[:GID]] [-env K=V]... [-cmd ARG]... [BINARY] [SOURCE=/DEST]...
//
// BINARY becomes /<its name> and the entrypoint; each SOURCE becomes the file DEST
// (executable, and setuid, when SOURCE is). TAR holds files that come first, a folder
// of Debian packages for example. It needs no registry, daemon or base image.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"sublet.dev/test/images/ociimage"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("mkimage", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	out := flags.String("o", "", "")
	base := flags.String("base", "", "")
	var image ociimage.Image
	flags.StringVar(&image.Name, "ref", "", "")
	flags.StringVar(&image.User, "user", "", "")
	flags.Func("env", "", appendTo(&image.Env))
	flags.Func("cmd", "", appendTo(&image.Cmd))
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *out == "" || flags.NArg() == 0 && *base == "" {
		return fmt.Errorf("usage: mkimage -o FILE -ref NAME:TAG [-base TAR] [-user UID[:GID]] [-env K=V]... [-cmd ARG]... [BINARY] [SOURCE=/DEST]")
	}
	if *base != "" {
		data, err := os.ReadFile(*base)
		if err != nil {
			return err
		}
		image.Base = data
	}
	for i, arg := range flags.Args() {
		source, dest, given := strings.Cut(arg, "=")
		if !given {
			dest = "/" + filepath.Base(source)
		}
		if i == 0 && !given {
			image.Entrypoint = []string{dest}
		}
		f, err := read(source, dest)
		if err != nil {
			return err
		}
		image.Files = append(image.Files, f)
	}
	return write(*out, image)
}

func appendTo(list *[]string) func(string) error {
	return func(s string) error { *list = append(*list, s); return nil }
}

func read(source, dest string) (ociimage.File, error) {
	info, err := os.Stat(source)
	if err != nil {
		return ociimage.File{}, err
	}
	data, err := os.ReadFile(source)
	if err != nil {
		return ociimage.File{}, err
	}
	mode := int64(0o644)
	if info.Mode()&0o111 != 0 {
		mode = 0o755
	}
	if info.Mode()&os.ModeSetuid != 0 {
		mode |= 0o4000
	}
	return ociimage.File{Path: dest, Mode: mode, Data: data}, nil
}

// write writes the image beside path first, so that path is whole or absent.
func write(path string, image ociimage.Image) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".mkimage-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	if err := ociimage.Write(f, image); err != nil {
		_ = f.Close()
		return err
	}
	if err := errors.Join(f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
