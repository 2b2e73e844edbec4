package report

import (
	"bufio"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
)

// Outcome is what came of a test.
type Outcome string

// The outcomes. A test that skipped itself ran; one that was not selected has none.
const (
	Passed  Outcome = "passed"
	Failed  Outcome = "failed"
	Skipped Outcome = "skipped"
	NotRun  Outcome = "not-run"
)

// Outcomes are the outcomes of conformance tests, by full name.
type Outcomes map[string]Outcome

// mark is in the name of every conformance test.
const mark = "[Conformance]"

// ReadJUnit reads the report that ginkgo writes of a run. A test that timed out or
// panicked failed.
func ReadJUnit(file string) (Outcomes, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("the suite left no report: %w", err)
	}
	var doc struct {
		Suites []struct {
			Cases []struct {
				Name    string `xml:"name,attr"`
				Status  string `xml:"status,attr"`
				Skipped *struct {
					Message string `xml:"message,attr"`
				} `xml:"skipped"`
				Failure struct {
					Message string `xml:"message,attr"`
					Text    string `xml:",chardata"`
				} `xml:"failure"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	outcomes := Outcomes{}
	for _, suite := range doc.Suites {
		for _, c := range suite.Cases {
			name := nameOf(c.Name)
			if !strings.Contains(name, mark) {
				continue
			}
			if c.Status == "timedout" && strings.Contains(c.Failure.Message+c.Failure.Text, "suite timeout") {
				c.Status = "interrupted" // the time of the whole run was over, not the test's
			}
			outcomes[name] = outcomeOf(c.Status, c.Skipped != nil && c.Skipped.Message != "skipped")
		}
	}
	return outcomes, nil
}

// nameOf takes what ginkgo puts around a test's own name away.
func nameOf(s string) string {
	s = strings.TrimPrefix(s, "[It] ")
	if end := strings.Index(s, mark); end >= 0 {
		s = s[:end+len(mark)]
	}
	return strings.Join(strings.Fields(s), " ")
}

func outcomeOf(status string, skippedItself bool) Outcome {
	switch status {
	case "passed":
		return Passed
	case "skipped", "pending":
		if skippedItself {
			return Skipped
		}
		return NotRun
	case "interrupted", "aborted":
		return NotRun // by whoever ended the run: nothing was shown
	}
	return Failed
}

// Ran returns the outcomes of the tests that ran.
func (o Outcomes) Ran() Outcomes {
	ran := maps.Clone(o)
	maps.DeleteFunc(ran, func(_ string, is Outcome) bool { return is == NotRun })
	return ran
}

// Read reads a file that Update wrote; an absent one has no outcomes.
func Read(file string) (Outcomes, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return Outcomes{}, nil
	}
	if err != nil {
		return nil, err
	}
	outcomes := Outcomes{}
	for lines := bufio.NewScanner(strings.NewReader(string(data))); lines.Scan(); {
		outcome, name, ok := strings.Cut(lines.Text(), "\t")
		if !ok {
			return nil, fmt.Errorf("%s: %q is no outcome and name", file, lines.Text())
		}
		outcomes[name] = Outcome(outcome)
	}
	return outcomes, nil
}

// Update takes what ran into a file of records and returns all of it. Tests that the
// suite no longer has are dropped.
func Update(file string, run Outcomes) (Outcomes, error) {
	record, err := Read(file)
	if err != nil {
		return nil, err
	}
	for name, outcome := range run {
		if _, recorded := record[name]; outcome != NotRun || !recorded {
			record[name] = outcome
		}
	}
	maps.DeleteFunc(record, func(name string, _ Outcome) bool { _, known := run[name]; return !known })
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(record)) {
		fmt.Fprintf(&b, "%s\t%s\n", record[name], name)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return nil, err
	}
	return record, os.WriteFile(file, []byte(b.String()), 0o644)
}

var sigPattern = regexp.MustCompile(`\[(sig-[a-z-]+)\]`)

// sig returns the special interest group that a test belongs to.
func sig(name string) string {
	if m := sigPattern.FindStringSubmatch(name); m != nil {
		return m[1]
	}
	return "none"
}

// count returns the number of tests by sig and outcome; the sig "all" has them all.
func (o Outcomes) count() map[string]map[Outcome]int {
	counts := map[string]map[Outcome]int{"all": {}}
	for name, outcome := range o {
		s := sig(name)
		if counts[s] == nil {
			counts[s] = map[Outcome]int{}
		}
		counts[s][outcome]++
		counts["all"][outcome]++
	}
	return counts
}

// Table returns the numbers by sig, for a terminal.
func (o Outcomes) Table() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SIG\tPASSED\tFAILED\tSKIPPED\tNOT RUN")
	counts := o.count()
	for _, s := range sigs(counts) {
		c := counts[s]
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\n", s, c[Passed], c[Failed], c[Skipped], c[NotRun])
	}
	w.Flush() // to memory: never fails
	return b.String()
}

// sigs returns the groups in order, "all" last.
func sigs(counts map[string]map[Outcome]int) []string {
	all := slices.Sorted(maps.Keys(counts))
	i := slices.Index(all, "all")
	return append(slices.Delete(all, i, i+1), "all")
}
