package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// outputFlag is the value of -o.
type outputFlag struct {
	value   string
	allowed []string // the first is the default
}

func (o *outputFlag) String() string { return o.value }
func (o *outputFlag) Type() string   { return strings.Join(o.allowed, "|") }

// Set refuses values that are not allowed.
func (o *outputFlag) Set(v string) error {
	if !slices.Contains(o.allowed, v) {
		return fmt.Errorf("use one of %s", strings.Join(o.allowed, ", "))
	}
	o.value = v
	return nil
}

// addOutput adds -o to a command.
func addOutput(cmd *cobra.Command, allowed ...string) *outputFlag {
	o := &outputFlag{value: allowed[0], allowed: allowed}
	cmd.Flags().VarP(o, "output", "o", "output format")
	must(cmd.RegisterFlagCompletionFunc("output", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return allowed, cobra.ShellCompDirectiveNoFileComp
	}))
	return o
}

// must is for calls that only fail by a mistake in this program, such as completion
// for a flag that does not exist.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// print writes v as JSON or YAML; ok is false for other formats.
func (o *outputFlag) print(w io.Writer, v any) (ok bool, err error) {
	var data []byte
	switch o.value {
	case "json":
		data, err = json.MarshalIndent(v, "", "  ")
		data = append(data, '\n')
	case "yaml":
		data, err = yaml.Marshal(v)
	default:
		return false, nil
	}
	if err != nil {
		return true, fmt.Errorf("encode as %s: %w", o.value, err)
	}
	_, err = w.Write(data)
	return true, err
}

// table writes rows in columns, the first row being the headings. What is in them may
// be anybody's.
func table(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, r := range rows {
		cells := make([]string, len(r))
		for i, text := range r {
			cells[i] = printable(text)
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	return t.Flush()
}

// printable is a text of somebody else's, fit for a terminal: what would move the
// cursor, colour or hide something, or turn the direction of text, is there as Go
// writes it in a string. Tenants choose parts of what is printed (CVE-2021-25743).
func printable(s string) string {
	var out strings.Builder
	for rest := s; rest != ""; {
		r, n := utf8.DecodeRuneInString(rest)
		if r == utf8.RuneError && n < 2 || !unicode.IsPrint(r) {
			quoted := strconv.Quote(rest[:n])
			out.WriteString(quoted[1 : len(quoted)-1])
		} else {
			out.WriteString(rest[:n])
		}
		rest = rest[n:]
	}
	return out.String()
}

// printableLines is printable for a text of several lines.
func printableLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = printable(lines[i])
	}
	return strings.Join(lines, "\n")
}
