package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersion(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "version", Short: "Print the version of sublet and of the Kubernetes in it",
		Args: noArgs, ValidArgsFunction: cobra.NoFileCompletions,
	}
	output := addOutput(cmd, "text", "json", "yaml")
	cmd.RunE = func(*cobra.Command, []string) error {
		v := struct {
			Sublet     string `json:"sublet"`
			Kubernetes string `json:"kubernetes"`
			Go         string `json:"go"`
		}{version, moduleVersion("k8s.io/kubernetes"), runtime.Version()}
		if ok, err := output.print(a.out, v); ok {
			return err
		}
		_, err := fmt.Fprintf(a.out, "sublet %s (Kubernetes %s, %s)\n", v.Sublet, v.Kubernetes, v.Go)
		return err
	}
	return cmd
}

// moduleVersion returns the version of a module that is linked in.
func moduleVersion(path string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, m := range info.Deps {
		if m.Path == path {
			if m.Replace != nil {
				m = m.Replace
			}
			return m.Version
		}
	}
	return "unknown"
}
