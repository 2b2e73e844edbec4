package storage

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The places that are changed, in upstream's module and in ours.
const (
	apiserver  = "k8s.io/apiserver"
	testServer = "pkg/storage/etcd3/testserver/test_server.go"
	storeTest  = "pkg/storage/etcd3/store_test.go"
	client     = "tenant-apiserver/etcdclient"
)

// workspace is where upstream's tests are run from: our module, with a go.mod
// in a temporary folder that has upstream's module replaced by a copy.
type workspace struct {
	root             string // of our module
	modfile, overlay string
}

func newWorkspace(t *testing.T) workspace {
	t.Helper()
	temp := t.TempDir()
	w := workspace{
		root:    output(t, exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}")),
		modfile: filepath.Join(temp, "go.mod"),
		overlay: filepath.Join(temp, "overlay.json"),
	}
	module := filepath.Join(temp, "apiserver")
	copyModule(t, module, output(t, exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", apiserver)))
	edit(t, module)
	for _, name := range []string{"go.mod", "go.sum"} {
		write(t, filepath.Join(temp, name), read(t, filepath.Join(w.root, name)))
	}
	output(t, exec.CommandContext(t.Context(), "go", "mod", "edit", "-replace", apiserver+"="+module, w.modfile))
	w.leaveOut(t, filepath.Join(w.root, client))
	return w
}

// goCommand is a call of go that sees upstream's module replaced.
func (w workspace) goCommand(t *testing.T, verb string, args ...string) *exec.Cmd {
	all := append([]string{verb, "-mod=mod", "-modfile=" + w.modfile, "-overlay=" + w.overlay}, args...)
	cmd := exec.CommandContext(t.Context(), "go", all...)
	cmd.Dir = w.root
	return cmd
}

// copyModule copies a module from the cache, where all is read-only.
func copyModule(t *testing.T, to, from string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), data, 0o644)
	})
	if err != nil {
		t.Fatalf("copy %s: %v", from, err)
	}
}

// edit puts our test server in, and our name for its settings.
func edit(t *testing.T, module string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(module, testServer)); err != nil {
		t.Fatalf("upstream moved its test server: %v", err)
	}
	write(t, filepath.Join(module, testServer), read(t, "testdata/test_server.go"))

	const imported, used = "\t\"go.etcd.io/etcd/server/v3/embed\"\n", "*embed.Config"
	text := read(t, filepath.Join(module, storeTest))
	for _, want := range []string{imported, used} {
		if !strings.Contains(text, want) {
			t.Fatalf("upstream's %s has no %q any more", storeTest, want)
		}
	}
	text = strings.ReplaceAll(strings.ReplaceAll(text, imported, ""), used, "*testserver.Config")
	write(t, filepath.Join(module, storeTest), text)
}

// leaveOut hides the files of a package that import upstream's module, and those
// that use what a hidden one declares.
func (w workspace) leaveOut(t *testing.T, dir string) {
	t.Helper()
	files := parse(t, dir)
	hidden, gone := map[string]string{}, map[string]bool{}
	for again := true; again; {
		again = false
		for path, file := range files {
			if _, done := hidden[path]; done || !imports(file, apiserver) && !uses(file, gone) {
				continue
			}
			hidden[path], again = "", true
			for name := range file.Scope.Objects {
				gone[name] = true
			}
		}
	}
	data, err := json.Marshal(map[string]any{"Replace": hidden})
	if err != nil {
		t.Fatal(err)
	}
	write(t, w.overlay, string(data))
}

// parse reads the Go files of a folder, tests apart.
func parse(t *testing.T, dir string) map[string]*ast.File {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]*ast.File{}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		if files[path], err = parser.ParseFile(token.NewFileSet(), path, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func imports(file *ast.File, module string) bool {
	return slices.ContainsFunc(file.Imports, func(i *ast.ImportSpec) bool {
		return strings.HasPrefix(i.Path.Value, `"`+module+"/")
	})
}

// uses says whether a file names something that it does not declare itself.
func uses(file *ast.File, names map[string]bool) bool {
	return slices.ContainsFunc(file.Unresolved, func(i *ast.Ident) bool { return names[i.Name] })
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
