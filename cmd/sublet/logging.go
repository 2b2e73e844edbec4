package main

import (
	"io"
	"log/slog"
	"strings"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
)

// logFlags are those of the commands that run for long.
type logFlags struct {
	format, level string
}

func (f *logFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.format, "log-format", "text", "form of the log on standard error: text or json")
	cmd.Flags().StringVar(&f.level, "log-level", "info", "least level that is logged: debug, info, warn or error")
}

// args returns the flags for a child process.
func (f *logFlags) args() []string {
	return []string{"--log-format=" + f.format, "--log-level=" + f.level}
}

// logger returns a logger to w and makes Kubernetes' libraries use it.
func (f *logFlags) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(strings.ToUpper(f.level))); err != nil {
		return nil, usageErrorf("--log-level %q is not possible: use debug, info, warn or error", f.level)
	}
	options := &slog.HandlerOptions{Level: level}
	var handler slog.Handler
	switch f.format {
	case "text":
		handler = slog.NewTextHandler(w, options)
	case "json":
		handler = slog.NewJSONHandler(w, options)
	default:
		return nil, usageErrorf("--log-format %q is not possible: use text or json", f.format)
	}
	logger := slog.New(handler)
	klog.SetSlogLogger(logger.With("from", "kubernetes"))
	ctrl.SetLogger(logr.FromSlogHandler(logger.With("from", "controller-runtime").Handler()))
	slog.SetDefault(logger)
	return logger, nil
}
