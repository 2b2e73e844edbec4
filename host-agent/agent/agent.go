package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/tools/clientcmd"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"sublet.dev/host-agent/internal/kube"
	"sublet.dev/host-agent/node"
	"sublet.dev/host-agent/sandbox"
	"sublet.dev/host-agent/volumes"
	"sublet.dev/isolation/tenant"
)

// KubeletClient is the user that the host's API server calls nodes as, the custom
// for clusters.
const KubeletClient = "kube-apiserver-kubelet-client"

// Config is what an agent needs. DataDir, BinDir, NodeName, NodeIP, Kubeconfig and
// Logger are required.
type Config struct {
	// DataDir holds the node's state, BinDir its binaries (`make deps`).
	DataDir, BinDir string
	// NodeName is the Node object's name, NodeIP the node's address.
	NodeName string
	NodeIP   netip.Addr
	// Kubeconfig is the file of the kubelet's identity, system:node:<NodeName> in
	// the group system:nodes. ProxyKubeconfig is kube-proxy's (system:kube-proxy),
	// AgentKubeconfig that of the fence and the DNS, which list and watch pods,
	// services, endpointslices, namespaces and virtualclusters, and that of the
	// volumes, which write persistentvolumes and statuses of claims. Each is
	// Kubeconfig when empty.
	Kubeconfig, ProxyKubeconfig, AgentKubeconfig string
	// Cert, Key and CA are the node's serving certificate, valid for NodeIP, and
	// the host's CA; kubelet.crt, kubelet.key and ca.crt in DataDir/agent/pki when
	// empty.
	Cert, Key, CA string
	// KubeletClients are the users that may call the node's kubelet port:
	// KubeletClient when empty.
	KubeletClients []string
	// Pods is the range of all nodes' pods and Services that of the host's
	// services: 10.244.0.0/16 and 10.96.0.0/12 when zero.
	Pods, Services netip.Prefix
	// Executable is this binary, which is also the CNI plugin; found when empty.
	Executable string
	Logger     *slog.Logger
}

// complete fills in what was left empty and names what is missing.
func (c Config) complete() (Config, error) {
	if c.Logger == nil {
		return c, errors.New("agent: Config.Logger is missing")
	}
	for field, v := range map[string]string{"DataDir": c.DataDir, "BinDir": c.BinDir, "NodeName": c.NodeName, "Kubeconfig": c.Kubeconfig} {
		if v == "" {
			return c, fmt.Errorf("agent: Config.%s is missing", field)
		}
	}
	if !c.NodeIP.IsValid() || c.NodeIP.IsLoopback() || c.NodeIP.IsUnspecified() {
		return c, fmt.Errorf("agent: the node's address %v must be one that other machines could reach, not loopback", c.NodeIP)
	}
	l, err := layout(c.DataDir, c.BinDir)
	if err != nil {
		return c, err
	}
	c.DataDir, c.BinDir = l.Data, l.Bin
	if c.Executable == "" {
		if c.Executable, err = os.Executable(); err != nil {
			return c, fmt.Errorf("find this program's file, which is also the CNI plugin: %w", err)
		}
	}
	pki := filepath.Join(l.Agent(), "pki")
	fill(&c.ProxyKubeconfig, c.Kubeconfig)
	fill(&c.AgentKubeconfig, c.Kubeconfig)
	fill(&c.Cert, filepath.Join(pki, "kubelet.crt"))
	fill(&c.Key, filepath.Join(pki, "kubelet.key"))
	fill(&c.CA, filepath.Join(pki, "ca.crt"))
	fill(&c.Pods, netip.MustParsePrefix("10.244.0.0/16"))
	fill(&c.Services, netip.MustParsePrefix("10.96.0.0/12"))
	if len(c.KubeletClients) == 0 {
		c.KubeletClients = []string{KubeletClient}
	}
	return c, nil
}

// fill sets v to otherwise when it is the zero value.
func fill[T comparable](v *T, otherwise T) {
	var zero T
	if *v == zero {
		*v = otherwise
	}
}

// layout resolves the two directories: mounts are known by their real paths.
func layout(data, bin string) (node.Layout, error) {
	l := node.Layout{}
	for _, d := range []struct {
		given string
		to    *string
	}{{data, &l.Data}, {bin, &l.Bin}} {
		abs, err := filepath.Abs(d.given)
		if err != nil {
			return l, fmt.Errorf("find %s: %w", d.given, err)
		}
		if *d.to, err = filepath.EvalSymlinks(abs); err != nil {
			return l, fmt.Errorf("find %s: %w", d.given, err)
		}
	}
	return l, nil
}

// agent is a running agent.
type agent struct {
	Config
	layout  node.Layout
	machine node.Machine
	runtime runtimev1.RuntimeServiceClient
	imports node.Imports
	offer   sandbox.Offer
	net     *network
	volumes *volumes.Node
	// versions are those of the node's parts, by name.
	versions map[string]string
}

// Run brings the node up and keeps it up until ctx ends; then it returns nil, and
// pods go on. An error says what is in the way and, where it can, what to do.
func Run(ctx context.Context, config Config) error {
	c, err := config.complete()
	if err != nil {
		return err
	}
	a := &agent{Config: c, layout: node.Layout{Data: c.DataDir, Bin: c.BinDir}}
	if err := node.Check(a.layout, c.NodeIP); err != nil {
		return err
	}
	if a.machine, err = node.Detect(); err != nil {
		return err
	}
	c.Logger.Info("machine", "found", a.machine)
	containerd, err := node.NewContainerd(a.layout, a.machine, c.Logger)
	if err != nil {
		return err
	}
	if err := containerd.Start(ctx); err != nil {
		return err
	}
	conn, err := node.Dial(a.layout)
	if err != nil {
		return err
	}
	defer conn.Close()
	a.runtime = runtimev1.NewRuntimeServiceClient(conn)
	if a.imports, err = node.NewImports(conn); err != nil {
		return err
	}
	if err := a.prepare(ctx); err != nil {
		return err
	}
	return a.run(ctx, containerd)
}

// prepare does what needs containerd and must be done before pods come.
func (a *agent) prepare(ctx context.Context) (err error) {
	if err := node.ImportOwn(ctx, a.layout); err != nil {
		return err
	}
	a.versions = versions(ctx, a.layout, a.runtime)
	a.offer, err = sandbox.Offers(ctx, a.runtime, sandbox.Proofs{
		tenant.GVisor: func(ctx context.Context) error {
			return sandbox.ProveRunsc(ctx, filepath.Join(a.layout.Bin, "runsc"), a.layout.Run())
		},
		tenant.RuncUserNS: func(context.Context) error {
			return sandbox.ProveUserNamespaces(a.layout.Containerd(), a.layout.Run())
		},
	})
	if err != nil {
		return err
	}
	for _, s := range tenant.Sandboxes() {
		if err := a.offer[s]; err != nil {
			a.Logger.Error("a sandbox does not work here: its pods will stay pending", "sandbox", s, "err", err)
			continue
		}
		a.Logger.Info("sandbox works", "sandbox", s, "runtimeClass", s.RuntimeClass())
	}
	if err := node.LinkPlugins(a.layout, a.Executable); err != nil {
		return err
	}
	if a.net, err = newNetwork(a); err != nil {
		return err
	}
	a.volumes, err = newVolumes(ctx, a)
	return err
}

// newVolumes mounts the node's volumes, before a pod asks for them.
func newVolumes(ctx context.Context, a *agent) (*volumes.Node, error) {
	host, err := clientcmd.BuildConfigFromFlags("", a.AgentKubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read the agent's kubeconfig: %w", err)
	}
	return volumes.New(ctx, volumes.Config{Dir: a.layout.Volumes(), NodeName: a.NodeName, Host: host, Logger: a.Logger})
}

// run runs the node's parts until ctx ends or one fails.
func (a *agent) run(ctx context.Context, containerd *node.Containerd) error {
	clientCA := filepath.Join(a.layout.Agent(), "pki", "front.crt")
	front := &node.Front{IP: a.NodeIP, Cert: a.Cert, Key: a.Key, CA: a.CA, Clients: a.KubeletClients, Handle: a.handle, Logger: a.Logger}
	if err := front.Identity(clientCA); err != nil {
		return err
	}
	configFile, err := node.WriteKubeletConfig(a.layout, a.machine, node.KubeletFiles{Cert: a.Cert, Key: a.Key, ClientCA: clientCA})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return containerd.Run(ctx) })
	g.Go(func() error { return front.Run(ctx) })
	g.Go(func() error { return a.forwards(ctx) })
	g.Go(func() error { return a.net.run(ctx) })
	g.Go(func() error { return a.volumes.Run(ctx) })
	g.Go(func() error { return a.watchNode(ctx) })
	g.Go(func() error {
		return kube.RunKubelet(ctx, kube.Kubelet{
			ConfigFile: configFile, Kubeconfig: a.Kubeconfig, NodeName: a.NodeName, NodeIP: a.NodeIP.String(),
			RootDir: a.layout.KubeletRoot(), Labels: a.labels(), ImportedID: a.imports.ID,
		})
	})
	return g.Wait()
}

// labels are those that the node registers with.
func (a *agent) labels() map[string]string {
	labels := map[string]string{}
	for k, v := range a.offer.Labels() {
		if v != nil {
			labels[k] = *v
		}
	}
	return labels
}
