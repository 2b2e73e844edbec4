package main

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"sublet.dev/host-agent/netpol"
	"sublet.dev/host-agent/node"
	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/policy/calico"
)

// targets are what a fence can be rendered to.
var targets = []string{"nftables", "calico"}

func newPolicy(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "policy", Short: "Show a tenant's network fence",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageErrorf("unknown command %q: use sublet policy render", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var target string
	render := &cobra.Command{
		Use:   "render NAME --target nftables|calico",
		Short: "Render a tenant's fence for what enforces it",
		Long: `Render a tenant's network fence: for nftables, what the agents of this host load (without
the pods' interfaces, which only their nodes know, and so without the tenant's own
network policies); for calico, the objects that say the same on a cluster with Calico,
the tenant's own policies among them, ready for kubectl apply.`,
		Args: oneName, ValidArgsFunction: a.completeName,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(targets, target) {
				return usageErrorf("--target %q is not possible: use nftables or calico", target)
			}
			return a.renderPolicy(cmd.Context(), args[0], target)
		},
	}
	render.Flags().StringVar(&target, "target", targets[0], "nftables or calico")
	must(render.RegisterFlagCompletionFunc("target", cobra.FixedCompletions(targets, cobra.ShellCompDirectiveNoFileComp)))
	cmd.AddCommand(render)
	return cmd
}

func (a *app) renderPolicy(ctx context.Context, name, target string) error {
	api, err := a.host()
	if err != nil {
		return err
	}
	vc, err := getTenant(ctx, api, name)
	if err != nil {
		return err
	}
	cluster, dns, err := clusterOf(ctx, api)
	if err != nil {
		return err
	}
	fence, err := policy.FenceFor(vc, dns...)
	if err != nil {
		return err
	}
	if target == "nftables" {
		pods, err := podAddresses(ctx, api, fence.Namespace)
		if err != nil {
			return err
		}
		var ingress []netip.Addr
		for _, namespace := range fence.IngressFrom {
			controllers, err := podAddresses(ctx, api, namespace)
			if err != nil {
				return err
			}
			ingress = append(ingress, controllers...)
		}
		_, err = fmt.Fprint(a.out, netpol.Script(cluster, fence, pods, ingress))
		return err
	}
	policies, err := networkPolicies(ctx, api, fence.Namespace)
	if err != nil {
		return err
	}
	return a.printObjects(calico.Render(cluster, fence, policies...))
}

// clusterOf returns what the fences of this host have in common, and where its
// nodes' DNS listens.
func clusterOf(ctx context.Context, api client.Client) (policy.Cluster, []netip.AddrPort, error) {
	c := policy.Cluster{
		PodCIDRs: []netip.Prefix{podRange}, ServiceCIDRs: []netip.Prefix{serviceRange},
		Blocked: policy.Blocked(), Private: policy.Private(),
	}
	var list corev1.NodeList
	if err := api.List(ctx, &list); err != nil {
		return c, nil, fmt.Errorf("list the nodes: %w", explain(err))
	}
	var dns []netip.AddrPort
	for _, n := range list.Items {
		for _, at := range n.Status.Addresses {
			ip, err := netip.ParseAddr(at.Address)
			if at.Type != corev1.NodeInternalIP || err != nil {
				continue
			}
			c.Nodes = append(c.Nodes, netip.PrefixFrom(ip, ip.BitLen()))
			dns = append(dns, netip.AddrPortFrom(ip, node.DNSPort))
		}
	}
	return c, dns, nil
}

func podAddresses(ctx context.Context, api client.Client, namespace string) ([]netip.Addr, error) {
	var pods corev1.PodList
	if err := api.List(ctx, &pods, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("list the host pods of %s: %w", namespace, explain(err))
	}
	var out []netip.Addr
	for _, p := range pods.Items {
		if ip, err := netip.ParseAddr(p.Status.PodIP); err == nil && !p.Spec.HostNetwork {
			out = append(out, ip)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out, nil
}

// networkPolicies returns the tenant's own policies, as they are on the host.
func networkPolicies(ctx context.Context, api client.Client, namespace string) ([]*networkingv1.NetworkPolicy, error) {
	var list networkingv1.NetworkPolicyList
	if err := api.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("list the tenant's host policies: %w", explain(err))
	}
	out := make([]*networkingv1.NetworkPolicy, len(list.Items))
	for i := range list.Items {
		out[i] = &list.Items[i]
	}
	return out, nil
}

func (a *app) printObjects(objects *calico.Objects) error {
	var b bytes.Buffer
	for _, o := range objects.InOrder() {
		data, err := yaml.Marshal(o)
		if err != nil {
			return fmt.Errorf("encode as yaml: %w", err)
		}
		b.WriteString("---\n")
		b.Write(data)
	}
	_, err := a.out.Write(b.Bytes())
	return err
}
