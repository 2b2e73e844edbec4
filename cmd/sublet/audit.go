package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"sublet.dev/isolation/audit"
)

// auditFlags are the flags of sublet audit.
type auditFlags struct {
	output, probe *outputFlag
	failOn        string
	timeout       time.Duration
}

// newAudit returns the command that finds out, and proves, whether tenants are
// fenced. Its exit codes are its own, also for wrong usage: a machine that reads
// them must not take a misspelt flag for a finding.
func newAudit(a *app) *cobra.Command {
	f := &auditFlags{}
	cmd := &cobra.Command{
		Use: "audit [NAME...]", Short: "Find out, and prove, whether tenants are fenced",
		Long: `Audit checks the named tenants, or all, and the host. Each check compares what was
declared, what was rendered from it, what the node enforces and what was observed.
Some only read objects (method "config"); proof is what was read from the running
processes and the kernel ("runtime") and what canaries tried ("probe"): short-lived
pods in the tenant's host namespace, which are removed again. What could not be found
out is an error, never a pass.

Exit codes:

  0    nothing was found at or above --fail-on
  1    the audit could not be done, or was called wrongly
  2    something was found at or above --fail-on
  3    nothing of that was found, but something could not be found out
  130  interrupted`,
		Example: `  sublet audit
  sublet audit acme --probe none
  sublet audit -o json | jq '.subjects[].results[] | select(.result != "pass")'`,
		Args: func(_ *cobra.Command, args []string) error {
			for _, name := range args {
				if err := checkName(name); err != nil {
					return &exitError{audit.ExitInternal, err}
				}
			}
			return nil
		},
		ValidArgsFunction: a.completeNames,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.audit(cmd.Context(), f, args) },
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &exitError{audit.ExitInternal, fmt.Errorf("%w: see `%s --help`", err, cmd.CommandPath())}
	})
	f.output = addOutput(cmd, "table", "json")
	f.probe = &outputFlag{value: "active", allowed: []string{"active", "none"}}
	cmd.Flags().Var(f.probe, "probe", "whether canaries may try")
	cmd.Flags().StringVar(&f.failOn, "fail-on", string(audit.Low), "the least `severity` of a finding that counts: critical, high, medium, low, info")
	cmd.Flags().DurationVar(&f.timeout, "timeout", audit.DefaultTimeout, "how long it may take, without the removal of canaries")
	return cmd
}

// audit runs an audit, prints it and returns its exit code as an error without a
// text.
func (a *app) audit(ctx context.Context, f *auditFlags, names []string) error {
	failOn, err := audit.ParseSeverity(f.failOn)
	if err != nil {
		return &exitError{audit.ExitInternal, fmt.Errorf("--fail-on: %w", err)}
	}
	if f.timeout <= 0 {
		return &exitError{audit.ExitInternal, fmt.Errorf("--timeout %s: give a duration above 0, such as 2m", f.timeout)}
	}
	host, err := a.hostConfig()
	if err != nil {
		return &exitError{audit.ExitInternal, err}
	}
	// client-go logs when a session ends because the audit was interrupted.
	klog.SetSlogLogger(slog.New(slog.DiscardHandler))
	p := newProgress(a.err)
	report, err := audit.Run(ctx, audit.Config{
		Host: host, Tenants: names, Probing: f.probe.value == "active", FailOn: failOn, Timeout: f.timeout, Progress: p.say,
	})
	p.done()
	if err != nil {
		return auditError(ctx, err)
	}
	write := func() error { return report.WriteTable(a.out, newProgress(a.out).color) }
	if f.output.value == "json" {
		write = func() error { return report.WriteJSON(a.out) }
	}
	if err := write(); err != nil {
		return &exitError{audit.ExitInternal, fmt.Errorf("write the report: %w", err)}
	}
	if code := report.ExitCode(); code != audit.ExitPass {
		return &exitError{code: code}
	}
	return nil
}

// auditError is the error of an audit that could not be done.
func auditError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return &exitError{exitInterrupted, err}
	}
	return &exitError{audit.ExitInternal, explain(err)}
}
