package main

import (
	"context"
	"path/filepath"

	"github.com/spf13/cobra"

	"sublet.dev/tenant-apiserver/keyring"
)

func addKMS(cmd *cobra.Command, socket *string) {
	cmd.Flags().StringVar(socket, "kms-socket", "", "unix socket of a KMS v2 plugin that encrypts the keys of the stores (default: the keys' files are what is kept safe)")
}

func kmsArgs(socket string) []string {
	if socket == "" {
		return nil
	}
	return []string{"--kms-socket=" + socket}
}

func checkKMS(socket string) error {
	if socket != "" && !filepath.IsAbs(socket) {
		return usageErrorf("--kms-socket %q is not an absolute path", socket)
	}
	return nil
}

// connectKMS returns the KMS, or nil without a socket. It is connected until ctx
// ends.
func connectKMS(ctx context.Context, socket string) (keyring.KMS, error) {
	if socket == "" {
		return nil, nil
	}
	return keyring.ConnectKMS(ctx, socket)
}
