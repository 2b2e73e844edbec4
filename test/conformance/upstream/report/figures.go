package report

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// What is between these lines of the docs is written by WriteFigures.
const (
	begin = "<!-- figures: written by make conformance -->\n"
	end   = "<!-- end of figures -->\n"
)

// WriteFigures brings the figures in a file of the docs up to date with the records,
// RUNTIME.txt in the folder results.
func WriteFigures(doc, results string, known Known) error {
	files, err := filepath.Glob(filepath.Join(results, "*.txt"))
	if err != nil {
		return err
	}
	records := map[string]Outcomes{}
	for _, f := range files {
		runtime := strings.TrimSuffix(filepath.Base(f), ".txt")
		if records[runtime], err = Read(f); err != nil {
			return err
		}
	}
	data, err := os.ReadFile(doc)
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(data), begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		return fmt.Errorf("%s has no place for figures: %q, %q", doc, begin, end)
	}
	return os.WriteFile(doc, []byte(before+begin+figures(records, known)+end+after), 0o644)
}

func figures(records map[string]Outcomes, known Known) string {
	var b strings.Builder
	for _, runtime := range slices.Sorted(maps.Keys(records)) {
		fmt.Fprintf(&b, "\n### %s\n\n| | tests | passed | failed | skipped by themselves | not run yet |\n|---|---|---|---|---|---|\n", runtime)
		counts := records[runtime].count()
		for _, s := range sigs(counts) {
			c := counts[s]
			fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d |\n", s, c[Passed]+c[Failed]+c[Skipped]+c[NotRun], c[Passed], c[Failed], c[Skipped], c[NotRun])
		}
		b.WriteString(failures(runtime, records[runtime], known))
	}
	return b.String() + "\n"
}

// failures lists what failed, by reason.
func failures(runtime string, record Outcomes, known Known) string {
	tests := map[string][]string{}
	for _, test := range slices.Sorted(maps.Keys(record)) {
		if record[test] != Failed {
			continue
		}
		why, ok := known.Why(runtime, test)
		if !ok {
			why = "The reason was not found yet."
		}
		tests[why] = append(tests[why], test)
	}
	var b strings.Builder
	for _, why := range slices.Sorted(maps.Keys(tests)) {
		fmt.Fprintf(&b, "\n%s\n\n", strings.TrimSpace(why))
		for _, test := range tests[why] {
			fmt.Fprintf(&b, "- %s\n", strings.TrimSuffix(test, " "+mark))
		}
	}
	return b.String()
}
