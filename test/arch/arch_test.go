package arch_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "sublet.dev/"

// pkg is the part of `go list -json` that the rules look at.
type pkg struct {
	ImportPath, Dir, Doc               string
	GoFiles                            []string
	Imports, TestImports, XTestImports []string
	Standard                           bool
}

// listed returns the module's packages.
func listed(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Doc,GoFiles,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = "../.."
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pkgs []pkg
	for d := json.NewDecoder(out); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		p.ImportPath = strings.TrimPrefix(p.ImportPath, module)
		pkgs = append(pkgs, p)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(pkgs) < 10 {
		t.Fatalf("go list found %d packages: the rules would hold of nothing", len(pkgs))
	}
	return pkgs
}

// rule forbids an import to all packages below from, save those below except.
type rule struct {
	from      string
	forbidden string
	except    []string
	why       string
}

var rules = []rule{
	{"", "k8s.io/kubernetes/", []string{"tenant-apiserver/internal", "host-agent/internal"}, "the rest of the code must survive a Kubernetes release unread"},
	{"", "go.etcd.io/bbolt", []string{"tenant-apiserver/store"}, "only the store knows its file"},
	{"tenant-apiserver", module + "syncer", nil, "the parts meet at a Kubernetes API"},
	{"tenant-apiserver", module + "host-agent", nil, "the parts meet at a Kubernetes API"},
	{"syncer", module + "tenant-apiserver", nil, "the parts meet at a Kubernetes API"},
	{"syncer", module + "host-agent", nil, "the parts meet at a Kubernetes API"},
	{"host-agent", module + "tenant-apiserver", nil, "the parts meet at a Kubernetes API"},
	{"host-agent", module + "syncer", nil, "the parts meet at a Kubernetes API"},
	{"isolation", module + "tenant-apiserver", nil, "isolation is what all agree on; it knows none of them"},
	{"isolation", module + "syncer", nil, "isolation is what all agree on; it knows none of them"},
	{"isolation", module + "host-agent", nil, "isolation is what all agree on; it knows none of them"},
	{"api", module, []string{"api"}, "the objects depend on nothing of ours"},
	{"tenant-apiserver/store", "k8s.io/", nil, "the store is bytes and revisions"},
	{"tenant-apiserver/store", "go.etcd.io/etcd", nil, "the store is bytes and revisions"},
}

func (r rule) broken(p pkg, imported string) bool {
	if !below(p.ImportPath, r.from) || !below(imported, strings.TrimSuffix(r.forbidden, "/")) {
		return false
	}
	for _, e := range r.except {
		if below(p.ImportPath, e) || below(imported, module+e) {
			return false
		}
	}
	return true
}

// below says whether path is folder or in it; everything is below "".
func below(path, folder string) bool {
	return folder == "" || path == folder || strings.HasPrefix(path, folder+"/")
}

func TestImports(t *testing.T) {
	pkgs := listed(t)
	for _, r := range rules {
		for _, p := range pkgs {
			imports := append(append([]string{}, p.Imports...), p.TestImports...)
			for _, imported := range append(imports, p.XTestImports...) {
				if r.broken(p, imported) {
					t.Errorf("%s imports %s: %s", p.ImportPath, imported, r.why)
				}
			}
		}
	}
}

// A rule whose folder or forbidden package is gone would hold for ever.
func TestRulesStillMeanSomething(t *testing.T) {
	pkgs := listed(t)
	for _, r := range rules {
		var from, used bool
		for _, p := range pkgs {
			from = from || below(p.ImportPath, r.from)
			used = used || below(module+p.ImportPath, strings.TrimSuffix(r.forbidden, "/"))
			for _, i := range append(append([]string{}, p.Imports...), p.TestImports...) {
				used = used || below(i, strings.TrimSuffix(r.forbidden, "/"))
			}
		}
		if !from || !used {
			t.Errorf("rule %q may not import %q is about nothing (folder there: %v, package used somewhere: %v)", r.from, r.forbidden, from, used)
		}
	}
}

// The rules must be able to fail.
func TestRulesBite(t *testing.T) {
	p := pkg{ImportPath: "syncer/engine"}
	for _, imported := range []string{"k8s.io/kubernetes/pkg/api", "go.etcd.io/bbolt", module + "host-agent/agent"} {
		broken := false
		for _, r := range rules {
			broken = broken || r.broken(p, imported)
		}
		if !broken {
			t.Errorf("%s may import %s", p.ImportPath, imported)
		}
	}
}

func TestPackageDocs(t *testing.T) {
	for _, p := range listed(t) {
		if len(p.GoFiles) > 0 && p.Doc == "" {
			t.Errorf("%s has no package doc: say what it is, the flow through it, what it never does", p.ImportPath)
		}
	}
}

// registryClients are modules that fetch images, charts or other artifacts. The client of
// container runtimes (k8s.io/cri-client) is none: upstream links it everywhere, and it
// has somebody else fetch, on a node.
var registryClients = []string{
	"github.com/containerd/containerd/v2", "github.com/google/go-containerregistry", "github.com/containers/image", "go.podman.io/image",
	"github.com/distribution/distribution", "github.com/docker/distribution", "github.com/docker/docker", "github.com/moby/moby",
	"oras.land/oras-go", "helm.sh/helm", "github.com/fluxcd",
}

// linked returns what is linked into the programs that have packages of some folders.
func linked(t *testing.T, folders ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-deps"}, folders...)...)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

func pulling(packages []string) (found []string) {
	for _, p := range packages {
		for _, module := range registryClients {
			if below(p, module) {
				found = append(found, p)
			}
		}
	}
	return found
}

// A tenant's control plane fetches nothing that a tenant names: it has no code for it.
// Nodes do, with containerd.
func TestControlPlanePullsNothing(t *testing.T) {
	packages := linked(t, "./tenant-apiserver/...", "./syncer/...", "./isolation/...", "./api/...")
	if len(packages) < 500 {
		t.Fatalf("go list found %d packages", len(packages))
	}
	if found := pulling(packages); len(found) > 0 {
		t.Errorf("a control plane can pull, by %q", found)
	}
	if len(pulling(linked(t, "./host-agent/..."))) == 0 {
		t.Error("nodes have no code that pulls: the test would find none")
	}
}
