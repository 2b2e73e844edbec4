package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func newConnect(a *app) *cobra.Command {
	f := credentialFlags{user: adminUser, groups: []string{adminGroup}}
	cmd := &cobra.Command{
		Use:   "connect NAME [-- COMMAND...]",
		Short: "Run a command, or a shell, with a tenant's kubeconfig",
		Long: `Run a command, or a shell, whose KUBECONFIG is a new kubeconfig of the tenant's
administrator. The kubeconfig is removed when the command ends. The exit code is the
command's.`,
		Example: "  sublet connect acme -- kubectl get pods -A\n  sublet connect acme",
		ValidArgsFunction: func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveDefault // a command and its files
			}
			return a.completeName(cmd, args, toComplete)
		},
		Args: func(cmd *cobra.Command, args []string) error {
			if n := cmd.ArgsLenAtDash(); n >= 0 {
				return oneName(cmd, args[:n])
			}
			if len(args) > 1 {
				return usageErrorf("put -- before the command: sublet connect %s -- %s …", args[0], args[1])
			}
			return oneName(cmd, args)
		},
	}
	f.addTTL(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := f.check(cmd); err != nil {
			return err
		}
		command := args[1:]
		if len(command) == 0 {
			shell := os.Getenv("SHELL")
			if shell == "" {
				shell = "/bin/sh"
			}
			command = []string{shell}
		}
		return a.connect(cmd.Context(), args[0], f, command, len(args) == 1)
	}
	return cmd
}

// connect runs a command with a kubeconfig that lives as long as it. A shell is
// introduced to its user.
func (a *app) connect(ctx context.Context, name string, f credentialFlags, command []string, shell bool) (err error) {
	path, err := exec.LookPath(command[0])
	if err != nil {
		return &exitError{127, fmt.Errorf("%s: no such command: see $PATH and, for a shell, $SHELL", command[0])} // 127: as shells have it
	}
	data, err := a.kubeconfig(ctx, name, f)
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(a.dir.path("run"), "connect-*.kubeconfig") // mode 0600
	if err != nil {
		return fmt.Errorf("write the kubeconfig: %w", err)
	}
	defer func() { err = errors.Join(err, os.Remove(file.Name())) }()
	_, err = file.Write(data)
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write the kubeconfig: %w", err)
	}
	if shell {
		fmt.Fprintf(a.err, "This shell's kubectl is connected to tenant %s. Leave it with `exit`.\n", name)
	}
	cmd := exec.Command(path, command[1:]...)
	cmd.Args[0] = command[0]
	cmd.Env = append(os.Environ(), "KUBECONFIG="+file.Name(), "SUBLET_TENANT="+name)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.in, a.out, a.err
	return runForwarding(cmd)
}

// runForwarding runs a command that gets the signals which this process gets. A
// terminal sends its own to both.
func runForwarding(cmd *exec.Cmd) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(signals, syscall.SIGHUP)
	}
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	terminal := term.IsTerminal(int(os.Stdin.Fd()))
	for {
		select {
		case s := <-signals:
			if s == os.Interrupt && terminal {
				continue
			}
			_ = cmd.Process.Signal(s) // it may have ended
		case err := <-ended:
			return exitOf(err)
		}
	}
}

// exitOf turns how a command ended into how this one ends.
func exitOf(err error) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return &exitError{code: 128 + int(status.Signal())}
	}
	return &exitError{code: exit.ExitCode()}
}
