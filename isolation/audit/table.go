package audit

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// cellWidth is the most that one of the four columns shows, in characters; the
// JSON form has them in full.
const cellWidth = 34

// WriteTable writes the report for people: per subject a line with the verdict
// and how much of it is proven, a row per check, and below each that did not pass
// what was seen and how to mend it. Nothing that a tenant chose can move the
// terminal's cursor: control characters are replaced.
func (r *Report) WriteTable(w io.Writer, color bool) error {
	t := &table{color: color}
	for i := range r.Subjects {
		t.subject(&r.Subjects[i])
	}
	for _, p := range r.Problems {
		t.linef("%s %s", t.paint(Error, "problem:"), plain(p))
	}
	t.linef("verdict: %s", t.paint(r.Verdict, verdictWord[r.Verdict]))
	_, err := io.WriteString(w, t.out.String())
	return err
}

var verdictWord = map[Status]string{Pass: "PASS", Fail: "FINDINGS", Error: "INCONCLUSIVE", Skip: "NOT CHECKED"}

var resultWord = map[Status]string{Pass: "pass", Fail: "FAIL", Error: "ERROR", Skip: "skip"}

// sgr is the terminal's colour of a status (ECMA-48, 8.3.117).
var sgr = map[Status]string{Pass: "32", Fail: "31;1", Error: "33;1", Skip: "2"}

type table struct {
	out   strings.Builder
	color bool
}

func (t *table) linef(format string, args ...any) { fmt.Fprintf(&t.out, format+"\n", args...) }

func (t *table) paint(s Status, text string) string {
	if !t.color {
		return text
	}
	return "\x1b[" + sgr[s] + "m" + text + "\x1b[0m"
}

var header = []string{"ID", "SEVERITY", "METHOD", "RESULT", "DECLARED", "RENDERED", "ENFORCED", "OBSERVED"}

// resultColumn is the place of RESULT in header: the one that is coloured.
const resultColumn = 3

func (t *table) subject(s *Subject) {
	c := s.Coverage
	about := string(s.Kind)
	if s.Sandbox != "" {
		about += ", sandbox " + plain(s.Sandbox)
	}
	t.linef("%s: %s (%s): %d/%d checks passed, %d proven by probe, %d by runtime%s", plain(s.Name), t.paint(s.Verdict, verdictWord[s.Verdict]),
		about, c.Passed, c.Checks, c.ByProbe, c.ByRuntime, remainder(c))
	rows := [][]string{header}
	for _, res := range s.Results {
		rows = append(rows, []string{res.ID, string(res.Severity), string(res.Method), resultWord[res.Status],
			cell(res.Declared), cell(res.Rendered), cell(res.Enforced), cell(res.Observed)})
	}
	widths := measure(rows)
	t.row(rows[0], widths, "")
	for i, res := range s.Results {
		t.row(rows[i+1], widths, res.Status)
		t.explain(res)
	}
	t.linef("")
}

// remainder writes what is not a pass.
func remainder(c Coverage) string {
	var out string
	for _, part := range []struct {
		n    int
		what string
	}{{c.Failed, "failed"}, {c.Errors, "inconclusive"}, {c.Skipped, "skipped"}} {
		if part.n > 0 {
			out += fmt.Sprintf(", %d %s", part.n, part.what)
		}
	}
	return out
}

func measure(rows [][]string) []int {
	widths := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, c := range r {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	return widths
}

func (t *table) row(cells []string, widths []int, s Status) {
	var line strings.Builder
	for i, c := range cells {
		padded := c + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c))
		if i == resultColumn && s != "" {
			padded = t.paint(s, padded)
		}
		line.WriteString("  " + padded)
	}
	t.linef("%s", strings.TrimRight(line.String(), " "))
}

// explain says what a check was about, what was seen and what to do, unless it
// passed.
func (t *table) explain(r Result) {
	if r.Status == Pass {
		return
	}
	t.linef("      what: %s", r.Title)
	t.linef("      seen: %s", plain(r.Reason))
	if r.Status == Fail && r.Remediation != "" {
		t.linef("      fix:  %s", r.Remediation)
	}
}

// cell makes s fit in a column; "-" stands for what the check does not look at.
func cell(s string) string {
	s = plain(s)
	if s == "" {
		return "-"
	}
	if utf8.RuneCountInString(s) > cellWidth {
		return string([]rune(s)[:cellWidth-1]) + "…"
	}
	return s
}

// plain replaces control characters, and the invisible ones that turn the
// direction of text, by '?': tenants choose parts of what is printed
// (CVE-2021-25743).
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s)
}
