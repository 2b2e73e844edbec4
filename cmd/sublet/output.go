package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

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

// table writes rows in columns, the first row being the headings.
func table(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(t, strings.Join(r, "\t"))
	}
	return t.Flush()
}
