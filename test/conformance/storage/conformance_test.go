package storage

import (
	"bufio"
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	_ "sublet.dev/tenant-apiserver/etcdclient" // what is tested: a change of it makes a remembered result stale
)

// suites are the packages whose tests are run, with the number of tests, those
// within tests not counted, that there are at least: fewer mean that upstream
// moved them.
var suites = []struct {
	pkg     string
	atLeast int
}{
	{"k8s.io/apiserver/pkg/storage/etcd3", 70},
	{"k8s.io/apiserver/pkg/storage/cacher", 135},
}

// TestUpstream runs upstream's suites. -v shows the counts.
func TestUpstream(t *testing.T) {
	w := newWorkspace(t)
	for _, suite := range suites {
		t.Run(suite.pkg[strings.LastIndex(suite.pkg, "/")+1:], func(t *testing.T) {
			t.Parallel() // most of what they do is waiting
			began := time.Now()
			r := run(t, w, suite.pkg)
			t.Logf("%s: %d tests passed, %d failed, %d skipped; within them %d, %d, %d; %.0f s",
				suite.pkg, r.top.passed, r.top.failed, r.top.skipped,
				r.sub.passed, r.sub.failed, r.sub.skipped, time.Since(began).Seconds())
			for _, name := range r.skips {
				t.Logf("upstream skipped %s", name)
			}
			for _, name := range r.failures {
				t.Errorf("%s failed:\n%s", name, r.output[name])
			}
			if n := r.top.passed + r.top.failed; n < suite.atLeast {
				t.Errorf("only %d tests were run, there were %d\n%s", n, suite.atLeast, r.output[""])
			}
		})
	}
}

// count of outcomes.
type count struct{ passed, failed, skipped int }

// result is what `go test -json` said of one package.
type result struct {
	top, sub        count // tests, and tests within tests
	failures, skips []string
	output          map[string]string // by test; "": of no test
}

// event is one line of `go test -json`.
type event struct {
	Action, Test, Output string
}

func run(t *testing.T, w workspace, pkg string) result {
	t.Helper()
	// -vet=off: upstream vets its own code.
	cmd := w.goCommand(t, "test", "-json", "-count=1", "-vet=off", "-timeout=20m", pkg)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaints strings.Builder
	cmd.Stderr = &complaints
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := result{output: map[string]string{}}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) == nil {
			r.add(e)
		}
	}
	if err := lines.Err(); err != nil {
		t.Error(err)
	}
	// A failure that no test owns up to: a package that does not compile, a panic.
	if err := cmd.Wait(); err != nil && len(r.failures) == 0 {
		t.Errorf("go test: %v\n%s%s", err, complaints.String(), r.output[""])
	}
	return r
}

// add takes one event.
func (r *result) add(e event) {
	if e.Action == "output" || e.Action == "build-output" {
		r.output[e.Test] += e.Output
		return
	}
	if e.Test == "" {
		return
	}
	n := &r.top
	if strings.Contains(e.Test, "/") {
		n = &r.sub
	}
	switch e.Action {
	case "pass":
		n.passed++
		delete(r.output, e.Test)
	case "fail":
		n.failed++
		r.failures = append(r.failures, e.Test)
	case "skip":
		n.skipped++
		r.skips = append(r.skips, e.Test)
		delete(r.output, e.Test)
	}
}

// TestOutcomes makes sure that a failing test is seen: an outcome read wrongly
// would have every suite pass.
func TestOutcomes(t *testing.T) {
	r := result{output: map[string]string{}}
	for _, e := range []event{
		{"run", "TestA", ""}, {"pass", "TestA", ""},
		{"output", "TestB/x", "no\n"}, {"fail", "TestB/x", ""}, {"fail", "TestB", ""},
		{"output", "TestC", "why\n"}, {"skip", "TestC", ""}, {"fail", "", ""},
	} {
		r.add(e)
	}
	want := result{top: count{1, 1, 1}, sub: count{0, 1, 0}}
	if r.top != want.top || r.sub != want.sub || !slices.Equal(r.failures, []string{"TestB/x", "TestB"}) ||
		r.output["TestB/x"] != "no\n" || !slices.Equal(r.skips, []string{"TestC"}) {
		t.Errorf("%+v", r)
	}
}

// output of a command that must work.
func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	return strings.TrimSpace(string(out))
}
