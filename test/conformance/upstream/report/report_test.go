package report_test

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sublet.dev/test/conformance/upstream/report"
)

// The shape of a report as ginkgo writes it: what is not a conformance test, or was not
// selected, is there too.
const junit = `<?xml version="1.0"?><testsuites><testsuite>
<testcase name="[SynchronizedBeforeSuite]" status="passed"></testcase>
<testcase name="[It] [sig-apps] Job should run [Conformance] [sig-apps, Conformance]" status="passed"></testcase>
<testcase name="[It] [sig-apps]  Job should end [Conformance]" status="failed"><failure></failure></testcase>
<testcase name="[It] [sig-node] Pods time out [Conformance]" status="timedout"></testcase>
<testcase name="[It] [sig-node] Pods elsewhere [Conformance]" status="skipped"><skipped message="skipped - needs two nodes"></skipped></testcase>
<testcase name="[It] [sig-node] Pods later [Conformance]" status="skipped"><skipped message="skipped"></skipped></testcase>
<testcase name="[It] [sig-node] Pods when the run was ended [Conformance]" status="timedout"><failure message="A suite timeout occurred"></failure></testcase>
<testcase name="[It] [sig-node] Pods on interrupt [Conformance]" status="interrupted"></testcase>
<testcase name="[It] [sig-node] Pods of another suite" status="failed"></testcase>
</testsuite></testsuites>`

const (
	runs, ends   = "[sig-apps] Job should run [Conformance]", "[sig-apps] Job should end [Conformance]"
	late, skips  = "[sig-node] Pods time out [Conformance]", "[sig-node] Pods elsewhere [Conformance]"
	notSelected  = "[sig-node] Pods later [Conformance]"
	cutShort     = "[sig-node] Pods when the run was ended [Conformance]"
	interrupted  = "[sig-node] Pods on interrupt [Conformance]"
	noSuchTest   = "[sig-node] Pods of the past [Conformance]"
	otherRuntime = "runc-userns"
)

func write(t *testing.T, name, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func read(t *testing.T) report.Outcomes {
	t.Helper()
	outcomes, err := report.ReadJUnit(write(t, "junit.xml", junit))
	if err != nil {
		t.Fatal(err)
	}
	return outcomes
}

func TestReadJUnit(t *testing.T) {
	want := report.Outcomes{runs: report.Passed, ends: report.Failed, late: report.Failed, skips: report.Skipped, notSelected: report.NotRun, cutShort: report.NotRun, interrupted: report.NotRun}
	if got := read(t); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if _, err := report.ReadJUnit("absent.xml"); err == nil {
		t.Error("a report that is not there was read")
	}
}

// A run of a part leaves the records of the others alone, and a test that upstream no
// longer has is dropped.
func TestUpdateKeepsWhatDidNotRun(t *testing.T) {
	file := write(t, "gvisor.txt", "failed\t"+runs+"\npassed\t"+notSelected+"\npassed\t"+noSuchTest+"\n")
	got, err := report.Update(file, read(t))
	if err != nil {
		t.Fatal(err)
	}
	want := report.Outcomes{runs: report.Passed, ends: report.Failed, late: report.Failed, skips: report.Skipped, notSelected: report.Passed, cutShort: report.NotRun, interrupted: report.NotRun}
	again, err := report.Read(file)
	if err != nil || !reflect.DeepEqual(got, want) || !reflect.DeepEqual(again, want) {
		t.Errorf("%v and in the file %v (%v), want %v", got, again, err, want)
	}
}

func TestSurprises(t *testing.T) {
	known := report.Known{
		{Reason: "r", Tests: []string{ends, noSuchTest}},
		{Reason: "elsewhere", Runtimes: []string{otherRuntime}, Tests: []string{runs, late}},
	}
	if got := known.Surprises("gvisor", read(t)); len(got) != 2 || !strings.Contains(got[0], late) || !strings.Contains(got[1], noSuchTest) {
		t.Errorf("gvisor: %q", got)
	}
	if got := known.Surprises(otherRuntime, read(t)); len(got) != 2 || !strings.HasPrefix(got[0], "passes now") || !strings.Contains(got[0], runs) {
		t.Errorf("%s: %q", otherRuntime, got)
	}
}

func TestOpen(t *testing.T) {
	known := report.Known{{Reason: "elsewhere", Runtimes: []string{otherRuntime}, Tests: []string{late}}, {Reason: "r", Tests: []string{ends}}}
	for runtime, want := range map[string][]string{"gvisor": {notSelected, interrupted, late, cutShort}, otherRuntime: {notSelected, interrupted, cutShort}} {
		if got := read(t).Open(runtime, known); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", runtime, got, want)
		}
	}
}

func TestFigures(t *testing.T) {
	const begin, end = "<!-- figures: written by make conformance -->\n", "<!-- end of figures -->\n"
	doc := write(t, "doc.md", "before\n"+begin+"old\n"+end+"after\n")
	results := t.TempDir()
	if _, err := report.Update(filepath.Join(results, "gvisor.txt"), read(t)); err != nil {
		t.Fatal(err)
	}
	known := report.Known{{Reason: "There is a reason.", Tests: []string{ends}}}
	if err := report.WriteFigures(doc, results, known); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	got := string(b)
	for _, want := range []string{
		"before\n" + begin, end + "after\n", "### gvisor", "| sig-apps | 2 | 1 | 1 | 0 | 0 |", "| all | 7 | 1 | 2 | 1 | 3 |",
		"There is a reason.\n\n- [sig-apps] Job should end\n", "The reason was not found yet.\n\n- [sig-node] Pods time out\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in:\n%s", want, got)
		}
	}
	if strings.Contains(got, "old") {
		t.Error("the old figures are still there")
	}
	if err := report.WriteFigures(write(t, "doc.md", "no place"), results, known); err == nil {
		t.Error("figures were written to a file that has no place for them")
	}
}

func TestReadKnown(t *testing.T) {
	if _, err := report.ReadKnown(write(t, "known.yaml", "- reason: because\n  tests: [x]\n")); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"- tests: [x]\n", "- reason: r\n", "- reason: r\n  test: [x]\n"} {
		if _, err := report.ReadKnown(write(t, "known.yaml", bad)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}
