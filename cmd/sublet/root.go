package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const (
	defaultDataDir = "/var/lib/sublet"
	envDataDir     = "SUBLET_DATA_DIR"
)

// app is what all commands share.
type app struct {
	streams
	dir dataDir
	// kubeFlags are flags that Kubernetes' libraries define for every program that
	// links them. They are kept from sublet's own, and given back before a command
	// runs, because the kubelet looks for them.
	kubeFlags *pflag.FlagSet
	log       *slog.Logger // of the commands that run for long
}

// run parses the arguments, runs the command and returns the exit code.
func run(ctx context.Context, args []string, s streams) int {
	a := &app{streams: s, kubeFlags: pflag.CommandLine}
	pflag.CommandLine = pflag.NewFlagSet("sublet", pflag.ContinueOnError)
	root := newRoot(a)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if codeOf(ctx, err) == exitInterrupted && errors.Is(err, context.Canceled) {
		err = fmt.Errorf("interrupted: what was asked for already goes on (%w)", err)
	}
	if err != nil && err.Error() != "" {
		fmt.Fprintf(s.err, "sublet: %s\n", printableLines(err.Error()))
		if codeOf(ctx, err) == exitUsage {
			fmt.Fprintln(s.err, "Run `sublet help` or `sublet COMMAND --help` for usage.")
		}
	}
	return codeOf(ctx, err)
}

// newRoot returns the command with all subcommands.
func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "sublet",
		Short: "A Kubernetes cluster for each tenant, on machines that many tenants share",
		Long: `Sublet gives every tenant a Kubernetes cluster of their own on machines that many
tenants share. Start a machine with "sublet up"; then, in another shell:

  sublet create acme --wait                 a tenant
  sublet connect acme -- kubectl get nodes  its cluster
  sublet kubeconfig acme > acme.kubeconfig  for the tenant`,
		Version:       version,
		SilenceErrors: true, SilenceUsage: true,
		Args:              noCommand,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: a.prepare,
	}
	root.PersistentFlags().String("data-dir", "", "where Sublet keeps its state (default $"+envDataDir+", or "+defaultDataDir+")")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageErrorf("%w: see `%s --help`", err, cmd.CommandPath())
	})
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.AddGroup(&cobra.Group{ID: groupTenants, Title: "Tenants:"}, &cobra.Group{ID: groupMachine, Title: "This machine:"})
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupTenants, newCreate(a), newList(a), newDescribe(a), newExplain(a), newKubeconfig(a), newAuthentication(a), newConnect(a), newDelete(a), newSleep(a), newWake(a), newPlan(a), newLogs(a), newStore(a), newAudit(a), newPolicy(a))
	add(groupMachine, newUp(a), newDown(a), newServer(a), newAgent(a), newImage(a))
	root.AddCommand(newCell(a), newVersion(a), newExitCodes())
	root.SetHelpCommand(newHelp())
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.Args = noCommand
			c.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	}
	return root
}

// newHelp is cobra's help command, but for topics that there are not: those are
// wrong usage.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Help about a command or a topic",
		PersistentPreRun: func(*cobra.Command, []string) {}, // needs no data directory
		ValidArgsFunction: func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
			about, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []string
			for _, c := range about.Commands() {
				if !c.Hidden && strings.HasPrefix(c.Name(), toComplete) {
					names = append(names, c.Name()+"\t"+c.Short)
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil {
				return usageErrorf("%w", err)
			}
			if len(rest) > 0 {
				return noCommand(about, rest)
			}
			return about.Help()
		},
	}
}

const (
	groupTenants = "tenants"
	groupMachine = "machine"
)

// noCommand refuses arguments that are no command, with suggestions.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := fmt.Sprintf("unknown command %q", args[0])
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		path := cmd.CommandPath() + " "
		err += ": did you mean `" + path + strings.Join(near, "` or `"+path) + "`?"
	}
	return usageErrorf("%s", err)
}

// prepare resolves the data directory before any command runs.
func (a *app) prepare(cmd *cobra.Command, _ []string) error {
	pflag.CommandLine = a.kubeFlags
	dir, err := cmd.Flags().GetString("data-dir")
	if err != nil {
		return err
	}
	if dir == "" {
		dir = os.Getenv(envDataDir)
	}
	if dir == "" {
		dir = defaultDataDir
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("data directory %s: %w", dir, err)
	}
	if abs == "/" {
		return usageErrorf("the data directory cannot be /")
	}
	a.dir = dataDir(abs)
	return nil
}

// oneName accepts exactly one argument: a name that a tenant can have.
func oneName(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return usageErrorf("the tenant's name is missing: %s", cmd.UseLine())
	case len(args) > 1:
		return usageErrorf("one name was expected, not %q: %s", args, cmd.UseLine())
	}
	return checkName(args[0])
}

// noArgs accepts no arguments.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageErrorf("unexpected argument %q: %s", args[0], cmd.UseLine())
	}
	return nil
}

// needRoot is the error of commands that only root can do.
func needRoot(cmd *cobra.Command) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%s must be run as root, because it manages containers and networks: run `sudo %s`", cmd.CommandPath(), cmd.CommandPath())
	}
	return nil
}
