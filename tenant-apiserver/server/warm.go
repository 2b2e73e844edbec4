package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sublet.dev/tenant-apiserver/internal/kube"
	"sublet.dev/tenant-apiserver/pki"
)

// Names of directories that a process uses for a moment, beside the golden
// store. One that was killed leaves them.
const (
	makingPrefix  = ".making-"
	warmingPrefix = ".warming-"
	leftAfter     = time.Hour // nothing takes as long as that
)

// Warm makes all that the first control plane of a process would make for those
// after it: the golden store in goldenDir, the OpenAPI documents, the schemas of
// built-in types. It does so by running a tenant's control plane that nobody
// uses, which is gone without a trace when Warm returns.
//
// Control planes may be started meanwhile: they wait for what they need, and
// nothing is made twice. A cancelled ctx ends it.
func Warm(ctx context.Context, goldenDir string, log *slog.Logger) (err error) {
	if err := os.MkdirAll(goldenDir, 0o700); err != nil {
		return fmt.Errorf("warm up: %w", err)
	}
	removeLeft(goldenDir, log)
	dir, err := os.MkdirTemp(goldenDir, warmingPrefix)
	if err != nil {
		return fmt.Errorf("warm up: %w", err)
	}
	defer func() {
		if err = errors.Join(err, os.RemoveAll(dir)); err != nil {
			err = fmt.Errorf("warm up: %w", err)
		}
	}()
	ca, err := pki.LoadOrCreate(filepath.Join(dir, "pki"), "warm-up")
	if err != nil {
		return err
	}
	s, err := Start(ctx, Config{
		Name: "warm-up", StorePath: filepath.Join(dir, "store.db"), GoldenDir: goldenDir,
		PKI: ca, ServiceCIDR: documentation, Logger: log,
	})
	if err != nil {
		return err
	}
	return errors.Join(RenderDocuments(), s.Stop(context.WithoutCancel(ctx)))
}

// RenderDocuments makes the process's OpenAPI documents, if there has been a control
// plane and they are not there yet. Otherwise the first request for one makes them, half
// a second later than others get theirs.
func RenderDocuments() error { return kube.RenderOpenAPI() }

// removeLeft removes what killed processes left. Another process may be using a
// young directory.
func removeLeft(goldenDir string, log *slog.Logger) {
	entries, err := os.ReadDir(goldenDir)
	if err != nil {
		log.Warn("look for what a killed process left", "error", err)
		return
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), makingPrefix) && !strings.HasPrefix(e.Name(), warmingPrefix) {
			continue
		}
		info, err := e.Info()
		if err == nil && time.Since(info.ModTime()) > leftAfter {
			err = os.RemoveAll(filepath.Join(goldenDir, e.Name()))
		}
		if err != nil {
			log.Warn("remove what a killed process left", "error", err)
		}
	}
}
