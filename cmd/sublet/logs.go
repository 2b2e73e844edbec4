package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"

	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/cell"
	"sublet.dev/tenant-apiserver/server"
)

func newLogs(a *app) *cobra.Command {
	var audit bool
	var q server.AuditQuery
	cmd := &cobra.Command{
		Use: "logs NAME --audit", Short: "Show the audit log of a tenant's API",
		Long: `Show the audit log of a tenant's API: who asked for what, when, and what the answer was.
Each line is an event (audit.k8s.io/v1) as JSON. The tenant's plan says what is recorded.

The log is read from the data directory, so this works on the machine of the server.`,
		Example: "  sublet logs acme --audit\n  sublet logs acme --audit --follow | jq -r '[.user.username, .verb, .requestURI] | @tsv'",
		Args:    oneName, ValidArgsFunction: a.completeName,
	}
	cmd.Flags().BoolVar(&audit, "audit", false, "the audit log (there is no other yet; sublet's own logs are in the data directory)")
	cmd.Flags().BoolVarP(&q.Follow, "follow", "f", false, "go on with what is recorded from now on")
	cmd.Flags().IntVar(&q.Limit, "tail", 0, "how many of the last events (default all there are)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !audit {
			return usageErrorf("say which log: sublet logs %s --audit", args[0])
		}
		if q.Limit < 0 {
			return usageErrorf("--tail must be a number of events")
		}
		return a.auditLog(cmd.Context(), args[0], q)
	}
	return cmd
}

// auditLog copies the tenant's audit log to standard output, the oldest first.
func (a *app) auditLog(ctx context.Context, name string, q server.AuditQuery) error {
	api, err := a.host()
	if err != nil {
		return err
	}
	vc, err := getTenant(ctx, api, name)
	if err != nil {
		return err
	}
	some, err := server.CopyAudit(ctx, a.out, cell.AuditLog(a.dir.tenant(tenant.ID(vc.UID))), q)
	if err == nil && !some {
		fmt.Fprintf(a.err, "Nothing is recorded of tenant %s: its plan %s says what is (`sublet plan show %s`).\n", name, vc.Spec.Plan, vc.Spec.Plan)
	}
	return err
}

func addAuditWebhook(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVar(path, "audit-webhook-config", "", "a kubeconfig that says where tenants' audit events are sent, beside their files")
}

func auditWebhookArgs(path string) []string {
	if path == "" {
		return nil
	}
	return []string{"--audit-webhook-config=" + path}
}

func checkAuditWebhook(path string) error {
	if path == "" {
		return nil
	}
	if !filepath.IsAbs(path) {
		return usageErrorf("--audit-webhook-config %q is not an absolute path", path)
	}
	if _, err := clientcmd.BuildConfigFromFlags("", path); err != nil {
		return usageErrorf("--audit-webhook-config: %w", err)
	}
	return nil
}
