package stories_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sublet.dev/test/machine"
)

// release is a release of the chart in testdata, in a tenant.
type release struct {
	t            *testing.T
	tenant, name string
	namespace    string
	env          []string
}

// try runs helm as somebody with the tenant's kubeconfig does, and returns what came
// of it.
func (r release) try(args ...string) machine.Result {
	r.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(filepath.Join(machine.Root, "bin/peers/helm"), append(args, "--namespace", r.namespace)...)
	cmd.Env, cmd.Stdout, cmd.Stderr = r.env, &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		r.t.Fatalf("helm %q: %v", args, err)
	}
	return machine.Result{Stdout: stdout.String(), Stderr: stderr.String(), Code: cmd.ProcessState.ExitCode()}
}

// helm runs helm, which must succeed, and returns its output.
func (r release) helm(args ...string) string {
	r.t.Helper()
	result := r.try(args...)
	if result.Code != 0 {
		r.t.Fatalf("helm %q: %v", args, result)
	}
	return result.Stdout
}

// upgrade upgrades the release; the chart's hooks and workloads are waited for.
func (r release) upgrade(flags ...string) machine.Result {
	r.t.Helper()
	return r.try(append([]string{"upgrade", r.name, "testdata/chart", "--wait", "--timeout=10m"}, flags...)...)
}

// get returns what kubectl's jsonpath finds in the release's namespace.
func (r release) get(jsonpath string, what ...string) string {
	r.t.Helper()
	return get(r.t, r.tenant, jsonpath, append(what, "-n", r.namespace)...)
}

// hook wants the pod of a hook to have run in the sandbox.
func (r release) hook(when string) {
	r.t.Helper()
	job := "job/" + r.name + "-" + when
	if done := r.get("{.status.succeeded}", job); done != "1" {
		r.t.Errorf("%s succeeded %q times", job, done)
	}
	said := machine.Kubectl(r.t, r.tenant, "logs", "-n", r.namespace, job)
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		r.t.Fatal(err)
	}
	if strings.Contains(said, strings.TrimSpace(string(kernel))) || !strings.Contains(said, "Linux") {
		r.t.Errorf("%s says %q: that is not the sandbox's kernel", job, said)
	}
}

// states returns the states of the release's revisions, the oldest first.
func (r release) states() []string {
	r.t.Helper()
	var history []struct{ Status string }
	if err := json.Unmarshal([]byte(r.helm("history", r.name, "-o", "json")), &history); err != nil {
		r.t.Fatal(err)
	}
	var out []string
	for _, h := range history {
		out = append(out, h.Status)
	}
	return out
}

// TestHelm has helm install, change and remove a chart in a tenant.
func TestHelm(t *testing.T) {
	byTarget(t)
	t.Parallel()
	const name = "helmed"
	tenant(t, name)
	kubeconfig := written(t, machine.Sublet(t, "kubeconfig", name))
	r := release{t: t, tenant: name, name: "shop", namespace: "apps", env: append(os.Environ(), "KUBECONFIG="+kubeconfig, "HELM_CACHE_HOME="+t.TempDir(), "HELM_CONFIG_HOME="+t.TempDir(), "HELM_DATA_HOME="+t.TempDir())}
	out := r.helm("install", r.name, "testdata/chart", "--create-namespace", "--wait", "--timeout=10m")
	if !strings.Contains(out, "revision 1, serves on Kubernetes v1.37") {
		t.Errorf("the chart's notes are %s", out)
	}
	r.hook("pre-install")
	steps := []struct {
		what string
		run  func(release)
	}{
		{"what helm says", release.shown}, {"its tests", release.tested}, {"upgrade", release.upgraded}, {"what is edited by hand", release.edited},
		{"an upgrade that fails", release.failed}, {"back to the first", release.rolledBack}, {"the end", release.ended},
	}
	for _, s := range steps {
		if !t.Run(s.what, func(t *testing.T) { r.t = t; s.run(r) }) {
			return
		}
	}
}

// shown asks helm for the release, and looks where helm keeps it.
func (r release) shown() {
	for _, want := range []struct {
		args []string
		says string
	}{
		{[]string{"list", "-o", "json"}, `"name":"shop","namespace":"apps","revision":"1"`},
		{[]string{"status", r.name}, "STATUS: deployed"},
		{[]string{"get", "values", r.name, "--all"}, "greeting: hello"},
		{[]string{"get", "manifest", r.name}, "kind: Gadget"},
		{[]string{"get", "hooks", r.name}, "helm.sh/hook: pre-delete"},
		{[]string{"get", "notes", r.name}, "revision 1"},
	} {
		if out := r.helm(want.args...); !strings.Contains(out, want.says) {
			r.t.Errorf("helm %q does not say %s: %s", want.args, want.says, out)
		}
	}
	if kind := r.get("{.type} {.metadata.labels.status}", "secret/sh.helm.release.v1.shop.v1"); kind != "helm.sh/release.v1 deployed" {
		r.t.Errorf("the release's Secret is %s", kind)
	}
	if size := r.get("{.spec.size} {.metadata.labels.app\\.kubernetes\\.io/managed-by}", "gadget/shop"); size != "1 Helm" {
		r.t.Errorf("the custom resource is %q", size)
	}
	if size := r.get("{.data.size}", "configmap/shop-cache"); size != "1" {
		r.t.Errorf("the subchart's value is %q", size)
	}
}

func (r release) tested() {
	out := r.helm("test", r.name, "--logs", "--timeout=10m")
	if !strings.Contains(out, "Phase:          Succeeded") || !strings.Contains(out, "POD LOGS: shop-visit (visit)\nok") {
		r.t.Errorf("helm test says %s", out)
	}
}

// upgraded changes values, leaves the subchart out and keeps what was made once.
func (r release) upgraded() {
	password := r.get("{.data.password}", "secret/shop-password")
	if result := r.upgrade("--set", "replicas=2,cache.enabled=false"); result.Code != 0 {
		r.t.Fatal(result)
	}
	r.hook("post-upgrade")
	if now := r.get("{.spec.replicas} {.status.readyReplicas}", "deployment/shop"); now != "2 2" {
		r.t.Errorf("wanted and ready replicas are %s", now)
	}
	if now := r.get("{.data.password}", "secret/shop-password"); now != password || now == "" {
		r.t.Errorf("the password was %q and is %q: lookup finds nothing", password, now)
	}
	if left := r.get("{.metadata.name}", "configmap/shop-cache", "--ignore-not-found"); left != "" {
		r.t.Errorf("%s is left of the subchart", left)
	}
}

// edited changes the objects behind helm's back: what the chart says nothing of stays;
// what it says is taken back, as the client merges and as the server does.
func (r release) edited() {
	plain := r
	plain.name = "plain"
	flags := []string{"--no-hooks", "--server-side=false"}
	plain.helm(append([]string{"install", plain.name, "testdata/chart"}, flags...)...)
	for _, name := range []string{"deployment/shop", "deployment/plain"} {
		machine.Kubectl(r.t, r.tenant, "label", "-n", r.namespace, name, "edited=yes")
		machine.Kubectl(r.t, r.tenant, "scale", "-n", r.namespace, name, "--replicas=3")
	}
	if result := r.upgrade("--set", "replicas=2"); result.Code == 0 || !strings.Contains(result.Stderr, "conflict") {
		r.t.Errorf("an upgrade against what another has set: %v", result)
	}
	if result := r.upgrade("--set", "replicas=2", "--force-conflicts"); result.Code != 0 {
		r.t.Fatal(result)
	}
	plain.helm(append([]string{"upgrade", plain.name, "testdata/chart", "--set", "greeting=again"}, flags...)...)
	for name, want := range map[string]string{"deployment/shop": "2 yes", "deployment/plain": "1 yes"} {
		if now := r.get("{.spec.replicas} {.metadata.labels.edited}", name); now != want {
			r.t.Errorf("%s: replicas and label are %q, want %q", name, now, want)
		}
	}
	plain.helm("uninstall", plain.name, "--no-hooks")
}

// failed upgrades to what cannot be: an image that is not there, a hook that fails, an
// object that the API refuses. Helm goes back to what was.
func (r release) failed() {
	before := r.get("{.spec.template.spec.containers[0].image} {.spec.replicas}", "deployment/shop")
	n := len(r.states())
	// The first is waited for until the time is over; the others fail by themselves.
	for _, c := range [][2]string{{"image=sublet.dev/nothing:1", "45s"}, {"postUpgrade={dial,127.0.0.1:1}", "5m"}, {"size=11", "5m"}} {
		bad, timeout := c[0], c[1]
		result := r.upgrade("--set", "replicas=2", "--set", bad, "--rollback-on-failure", "--timeout="+timeout, "--force-conflicts")
		if result.Code == 0 || !strings.Contains(result.Stderr, "rolled back due to rollback-on-failure being set") {
			r.t.Errorf("the upgrade to %s: %v", bad, result)
		}
		if now := r.get("{.spec.template.spec.containers[0].image} {.spec.replicas}", "deployment/shop"); now != before {
			r.t.Errorf("after the upgrade to %s there is %s, not %s", bad, now, before)
		}
		states := r.states()
		if last := states[len(states)-2:]; !slices.Equal(last, []string{"failed", "deployed"}) {
			r.t.Errorf("after the upgrade to %s the revisions are %s", bad, states)
		}
	}
	if now := len(r.states()); now != n+6 {
		r.t.Errorf("there were %d revisions and are %d", n, now)
	}
}

// rolledBack goes back to the first revision, with the subchart.
func (r release) rolledBack() {
	r.helm("rollback", r.name, "1", "--wait", "--timeout=10m", "--force-conflicts")
	if now := r.get("{.spec.replicas}", "deployment/shop"); now != "1" {
		r.t.Errorf("the replicas are %s", now)
	}
	if size := r.get("{.data.size}", "configmap/shop-cache"); size != "1" {
		r.t.Errorf("the subchart's value is %q", size)
	}
}

// ended uninstalls the release: its hook runs, its objects go, its CRD stays.
func (r release) ended() {
	r.helm("uninstall", r.name, "--wait", "--timeout=10m")
	r.hook("pre-delete")
	for _, kind := range []string{"deployments", "services", "gadgets", "configmaps", "secrets"} {
		if left := r.get("{.items[*].metadata.name}", kind); left != "" && left != "kube-root-ca.crt" {
			r.t.Errorf("%s are left: %s", kind, left)
		}
	}
	if out := r.helm("list", "-q"); strings.TrimSpace(out) != "" {
		r.t.Errorf("releases are left: %s", out)
	}
	machine.Kubectl(r.t, r.tenant, "get", "crd", "gadgets.helm.example.com")
	if result := r.try("status", r.name); result.Code == 0 || !strings.Contains(result.Stderr, "not found") {
		r.t.Errorf("the status of a release that is gone: %v", result)
	}
}
