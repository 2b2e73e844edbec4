package upstream

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sublet.dev/test/conformance/upstream/report"
	"sublet.dev/test/machine"
	"sublet.dev/test/wire"
)

func TestMain(m *testing.M) {
	if os.Getenv(runtimeVar) == "" {
		os.Exit(m.Run()) // the only test skips: it needs no machine
	}
	os.Exit(machine.Main(m))
}

// The variables that `make conformance` sets; see the Makefile.
const (
	runtimeVar = "SUBLET_CONFORMANCE_RUNTIME" // gvisor or runc-userns: unset, nothing runs
	focusVar   = "SUBLET_CONFORMANCE_FOCUS"
	skipVar    = "SUBLET_CONFORMANCE_SKIP"
	procsVar   = "SUBLET_CONFORMANCE_PROCS"
	limitVar   = "SUBLET_CONFORMANCE_LIMIT" // after that the run is ended: 5m
	restVar    = "SUBLET_CONFORMANCE_REST"  // set: only what has neither passed nor a reason
)

// plan leaves a tenant room for all that the suite does at a time.
const plan = `
apiVersion: sublet.dev/v1alpha1
kind: Plan
metadata: {name: conformance}
spec:
  idleAfter: 0s
  nodePorts: 100
  runtimeClasses: [{name: test-handler}] # upstream's documented name of a handler that nodes have
  csiDrivers: [e2e.example.com] # which no node has
  storeQuota: 1Gi
  hostResources: {pods: 500, services: 1000, configmaps: 5000, secrets: 5000}
  objects: {total: 50000, perResource: 20000, customResourceDefinitions: 500, size: 1536Ki}
  requests: {concurrent: 400, streams: 5000}
`

// The tenant that is tested, and its server's name.
const (
	tenant     = "conformance"
	serverName = tenant + ".sublet.internal"
)

// TestConformance runs the suite, or what FOCUS and SKIP leave of it.
func TestConformance(t *testing.T) {
	runtime := os.Getenv(runtimeVar)
	if runtime == "" {
		t.Skip("takes hours: make conformance")
	}
	machine.Running(t)
	importImages(t)
	out := filepath.Join(machine.Root, "bin/conformance/results", runtime)
	if err := os.MkdirAll(out, 0o755); err != nil {
		t.Fatal(err)
	}
	suite := command(out, newTenant(t, runtime), selection(t, runtime))
	log, err := os.Create(filepath.Join(out, "e2e.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	suite.Stdout, suite.Stderr = log, log
	t.Logf("running; the suite's log is %s", log.Name())
	var failed *exec.ExitError // that tests failed is in the report
	if err := suite.Run(); err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	keepLogs(t, out)
	account(t, runtime, filepath.Join(out, junit))
}

func importImages(t *testing.T) {
	t.Helper()
	images, err := filepath.Glob(filepath.Join(machine.Root, "bin/conformance/images/*.tar"))
	if err != nil || len(images) == 0 {
		t.Fatalf("no images (%v): was build.sh run?", err)
	}
	for _, image := range images {
		machine.Sublet(t, "image", "import", image)
	}
	serveImages(t, images, filepath.Join(machine.DataDir(), "registries"))
}

// newTenant makes the tenant and returns the file of its kubeconfig.
func newTenant(t *testing.T, runtime string) string {
	t.Helper()
	dir := t.TempDir()
	planFile, kubeconfig := filepath.Join(dir, "plan.yaml"), filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(planFile, []byte(plan), 0o600); err != nil {
		t.Fatal(err)
	}
	machine.Host(t, "apply", "-f", planFile)
	machine.Sublet(t, "create", tenant, "--plan", "conformance", "--sandbox", runtime, "--wait")
	// The suite drops the server name of a kubeconfig: it must find the tenant by a name
	// that resolves, as behind a provider's DNS; see command.
	content := strings.ReplaceAll(machine.Sublet(t, "kubeconfig", tenant, "--ttl", "24h"), "https://"+wire.Node+":", "https://"+serverName+":")
	if err := os.WriteFile(kubeconfig, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	machine.Eventually(t, "the tenant sees a node", func() error {
		r := machine.TryKubectl(t, tenant, "wait", "--for=condition=Ready", "nodes", "--all", "--timeout=60s")
		if r.Code != 0 {
			return errors.New(r.String())
		}
		return nil
	})
	return kubeconfig
}

// keepLogs copies what Sublet logged, which ends with the machine, beside the suite's
// log: why a test failed may be there alone.
func keepLogs(t *testing.T, out string) {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(machine.DataDir(), "log/*.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, log := range logs {
		data, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(out, filepath.Base(log)), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// selection returns the ginkgo arguments that choose the tests.
func selection(t *testing.T, runtime string) []string {
	t.Helper()
	focus, skip := os.Getenv(focusVar), os.Getenv(skipVar)
	if os.Getenv(restVar) != "" {
		focus = rest(t, runtime, focus)
	}
	var args []string
	if focus != "" {
		args = append(args, "--focus="+focus)
	}
	if skip != "" {
		args = append(args, "--skip="+skip)
	}
	return args
}

// rest returns an expression for the tests that focus matches and that have neither
// passed nor a reason why they do not; focus itself if nothing is recorded yet.
func rest(t *testing.T, runtime, focus string) string {
	t.Helper()
	record, err := report.Read(records(runtime))
	if err != nil {
		t.Fatal(err)
	}
	known, err := report.ReadKnown("known.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(record) == 0 {
		return focus
	}
	among, err := regexp.Compile(focus)
	if err != nil {
		t.Fatal(err)
	}
	open := slices.DeleteFunc(record.Open(runtime, known), func(name string) bool { return !among.MatchString(name) })
	if len(open) == 0 {
		t.Skip("all that FOCUS matches has passed or has a reason")
	}
	for i, name := range open { // upstream's names have runs of spaces, the records' single ones
		open[i] = strings.ReplaceAll(regexp.QuoteMeta(name), " ", `\s+`)
	}
	t.Logf("%d tests have neither passed nor a reason", len(open))
	return strings.Join(open, "|")
}

// records is the file with what came of the tests on a runtime.
func records(runtime string) string { return filepath.Join("results", runtime+".txt") }

// junit is the report's name in the folder of results.
const junit = "junit.xml"

// command returns the suite, which will write its report into out. It has an
// /etc/hosts of its own, in which the tenant's server has an address.
func command(out, kubeconfig string, selection []string) *exec.Cmd {
	bin := filepath.Join(machine.Root, "bin/conformance")
	args := []string{
		"--no-color", "--timeout=" + or(os.Getenv(limitVar), "12h"), "--label-filter=Conformance", "--flake-attempts=1", "--silence-skips",
		"--procs=" + or(os.Getenv(procsVar), "2"), "--output-dir=" + out, "--junit-report=" + junit,
	}
	args = append(args, selection...)
	args = append(args, filepath.Join(bin, "e2e.test"), "--",
		"--kubeconfig="+kubeconfig, "--provider=skeleton", "--disable-log-dump",
		"--kubectl-path="+filepath.Join(machine.Root, "bin/kubectl"), "--e2e-output-dir="+out)
	const withHosts = `cp /etc/hosts hosts && echo "$1" >>hosts && mount --bind hosts /etc/hosts && shift && exec "$@"`
	args = append([]string{"--mount", "sh", "-euc", withHosts, "sh", wire.Node + " " + serverName, filepath.Join(bin, "ginkgo")}, args...)
	cmd := exec.Command("unshare", args...)
	cmd.Dir = out
	cmd.Env = append(os.Environ(), "HOME="+out, "KUBECONFIG="+kubeconfig)
	return cmd
}

func or(s, byDefault string) string {
	if s == "" {
		return byDefault
	}
	return s
}

// account takes the report into the records and fails on what was not expected.
func account(t *testing.T, runtime, junitFile string) {
	t.Helper()
	outcomes, err := report.ReadJUnit(junitFile)
	if err != nil {
		t.Fatal(err)
	}
	known, err := report.ReadKnown("known.yaml")
	if err != nil {
		t.Fatal(err)
	}
	record, err := report.Update(records(runtime), outcomes)
	if err != nil {
		t.Fatal(err)
	}
	if err := report.WriteFigures(filepath.Join(machine.Root, "docs/conformance.md"), "results", known); err != nil {
		t.Fatal(err)
	}
	for _, surprise := range known.Surprises(runtime, outcomes) {
		t.Error(surprise)
	}
	ran := outcomes.Ran()
	if len(ran) == 0 {
		t.Error("no test ran: see the suite's log, and FOCUS and SKIP")
	}
	fmt.Printf("This run:\n%s\nAll that is recorded of %s:\n%s", ran.Table(), runtime, strings.TrimRight(record.Table(), "\n")+"\n")
}
