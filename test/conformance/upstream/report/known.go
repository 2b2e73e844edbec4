package report

import (
	"fmt"
	"maps"
	"os"
	"slices"

	"sigs.k8s.io/yaml"
)

// Reason is why some tests do not pass.
type Reason struct {
	// Reason is what was seen, for a reader of the docs.
	Reason string `json:"reason"`
	// Runtimes are those on which it holds; empty means all.
	Runtimes []string `json:"runtimes,omitempty"`
	// Tests are full names.
	Tests []string `json:"tests"`
}

// Known are the tests of which it is known that they do not pass.
type Known []Reason

// ReadKnown reads a list of reasons. A test has one reason for a runtime.
func ReadKnown(file string) (Known, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var known Known
	if err := yaml.UnmarshalStrict(data, &known); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	for _, r := range known {
		if r.Reason == "" || len(r.Tests) == 0 {
			return nil, fmt.Errorf("%s: a reason without text or tests: %+v", file, r)
		}
	}
	return known, nil
}

// Why returns why a test does not pass on a runtime.
func (k Known) Why(runtime, test string) (reason string, known bool) {
	for _, r := range k {
		if (len(r.Runtimes) == 0 || slices.Contains(r.Runtimes, runtime)) && slices.Contains(r.Tests, test) {
			return r.Reason, true
		}
	}
	return "", false
}

// Open returns the tests that have neither passed on a runtime nor a reason why they do
// not, in order. One that skipped itself is done.
func (o Outcomes) Open(runtime string, known Known) []string {
	var open []string
	for _, test := range slices.Sorted(maps.Keys(o)) {
		_, explained := known.Why(runtime, test)
		if is := o[test]; is != Passed && is != Skipped && !explained {
			open = append(open, test)
		}
	}
	return open
}

// Surprises returns what a run showed that is not known: a test that failed and has no
// reason, and one that has a reason and passed. A test that is known and that the suite
// does not have is one too.
func (k Known) Surprises(runtime string, run Outcomes) []string {
	var surprises []string
	for _, test := range slices.Sorted(maps.Keys(run)) {
		_, known := k.Why(runtime, test)
		switch outcome := run[test]; {
		case outcome == Failed && !known:
			surprises = append(surprises, "failed: "+test)
		case outcome == Passed && known:
			surprises = append(surprises, "passes now, and is listed as known to fail: "+test)
		}
	}
	for _, r := range k {
		for _, test := range r.Tests {
			if _, has := run[test]; !has {
				surprises = append(surprises, "is listed as known to fail, and upstream has no such test: "+test)
			}
		}
	}
	return surprises
}
