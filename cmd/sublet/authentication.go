package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"sublet.dev/tenant-apiserver/authn"
	"sublet.dev/tenant-apiserver/server"
)

func newAuthentication(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "authentication", Short: "Let a tenant's users log in with OpenID Connect",
		Long: `Say which OpenID Connect issuers' tokens a tenant's API takes, beside its kubeconfigs. The
file is an AuthenticationConfiguration (apiserver.config.k8s.io/v1) as kube-apiserver has it.`,
		Args: noCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newAuthenticationSet(a), newAuthenticationClear(a), newAuthenticationShow(a))
	return cmd
}

func newAuthenticationSet(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "set NAME FILE", Short: `Change the issuers of a tenant ("-" is standard input)`,
		Long:    `Change the issuers of a tenant. It takes effect within seconds; nothing is restarted.`,
		Example: "  sublet authentication set acme issuers.yaml",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usageErrorf("a tenant's name and a file are needed: sublet authentication set NAME FILE")
			}
			return checkName(args[0])
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return nil, cobra.ShellCompDirectiveDefault
			}
			return a.completeName(cmd, args, toComplete)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			config, err := readAuthentication(args[1], a.in)
			if err != nil {
				return err
			}
			return a.setAuthentication(cmd.Context(), args[0], config)
		},
	}
}

func newAuthenticationClear(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "clear NAME", Short: "Take no issuer's tokens any more",
		Args: oneName, ValidArgsFunction: a.completeName,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.setAuthentication(cmd.Context(), args[0], nil)
		},
	}
}

func newAuthenticationShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show the issuers of a tenant",
		Args: oneName, ValidArgsFunction: a.completeName,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := a.host()
			if err != nil {
				return err
			}
			vc, err := getTenant(cmd.Context(), api, args[0])
			if err != nil {
				return err
			}
			if vc.Spec.Authentication == nil {
				_, err := fmt.Fprintf(a.err, "Tenant %s takes no issuer's tokens.\n", args[0])
				return err
			}
			text, err := yaml.JSONToYAML(vc.Spec.Authentication.Raw)
			if err != nil {
				return fmt.Errorf("show the issuers of tenant %q: %w", args[0], err)
			}
			_, err = a.out.Write(text)
			return err
		},
	}
}

// readAuthentication reads and checks a file; no path gives no configuration.
func readAuthentication(path string, in io.Reader) (*runtime.RawExtension, error) {
	if path == "" {
		return nil, nil
	}
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read the authentication configuration: %w", err)
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, authn.MaxSize+1)) // one more is too many, which the next step says
	if err != nil {
		return nil, fmt.Errorf("read the authentication configuration: %w", err)
	}
	if err := server.ParseAuthentication(data); err != nil {
		return nil, &exitError{exitUsage, err}
	}
	raw, err := yaml.YAMLToJSON(data)
	if err != nil {
		return nil, &exitError{exitUsage, fmt.Errorf("read the authentication configuration: %w", err)}
	}
	return &runtime.RawExtension{Raw: raw}, nil
}

func (a *app) setAuthentication(ctx context.Context, name string, config *runtime.RawExtension) error {
	api, err := a.host()
	if err != nil {
		return err
	}
	vc, err := getTenant(ctx, api, name)
	if err != nil {
		return err
	}
	before := vc.DeepCopy()
	vc.Spec.Authentication = config
	if err := api.Patch(ctx, vc, client.MergeFrom(before)); err != nil {
		return fmt.Errorf("change the issuers of tenant %q: %w", name, explain(err))
	}
	said := "takes no issuer's tokens"
	if config != nil {
		said = "takes the tokens of the issuers in the file"
	}
	_, err = fmt.Fprintf(a.out, "tenant %s %s\n", name, said)
	return err
}
