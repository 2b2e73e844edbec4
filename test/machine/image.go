package machine

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"testing"

	"sublet.dev/test/images/ociimage"
)

// Image builds the program in a folder of the checkout and imports an image of it under
// that name: nothing else is in it, and it runs as nobody.
func Image(t testing.TB, folder, name string) {
	t.Helper()
	dir, program := t.TempDir(), path.Base(folder)
	binary := filepath.Join(dir, program)
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", binary, "./"+folder)
	build.Dir, build.Env = Root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, program+".tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	err = ociimage.Write(f, ociimage.Image{
		Name: name, User: "65534:65534", Entrypoint: []string{"/" + program},
		Files: []ociimage.File{{Path: "/" + program, Mode: 0o755, Data: data}},
	})
	if err != nil {
		t.Fatal(err)
	}
	Sublet(t, "image", "import", f.Name())
}
