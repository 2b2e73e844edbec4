package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// The exit codes; `sublet help exit-codes` tells users.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitTimeout     = 4
	exitConflict    = 5
	exitInterrupted = 130 // 128 + SIGINT, as shells have it
)

// exitError is an error with an exit code of its own. An error without a text
// only sets the exit code: its cause was told already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usageErrorf is an error in how the command was called.
func usageErrorf(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// codeOf returns the exit code of an error.
func codeOf(ctx context.Context, err error) int {
	var e *exitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &e):
		return e.code
	case apierrors.IsNotFound(err):
		return exitNotFound
	case apierrors.IsAlreadyExists(err), apierrors.IsConflict(err):
		return exitConflict
	case errors.Is(err, context.DeadlineExceeded):
		return exitTimeout
	case ctx.Err() != nil:
		return exitInterrupted
	}
	return exitFailed
}

// newExitCodes is the help topic about exit codes.
func newExitCodes() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "What the exit codes mean",
		Long: `The exit codes of sublet:

  0    it worked
  1    it did not work; the message says why and what to do
  2    wrong usage: an unknown command or flag, or a value that is not possible
  3    the tenant does not exist, or the store, backup or imported image that was named
  4    a --timeout ended before what was waited for had happened
  5    conflict: what is to be made exists already, another process holds the data directory
       or the store, or a backup is another tenant's
  130  interrupted (SIGINT, SIGTERM, SIGHUP); up, server, agent and cell end with 0 then

sublet connect NAME -- COMMAND ends with the exit code of the command.
sublet audit has exit codes of its own: see sublet audit --help.`,
	}
}
