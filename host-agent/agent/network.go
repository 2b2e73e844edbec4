package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	miekg "github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"

	"sublet.dev/host-agent/dns"
	"sublet.dev/host-agent/netpol"
	"sublet.dev/host-agent/node"
	"sublet.dev/host-agent/podnet"
)

// resolvers lists the node's own.
const resolvers = "/etc/resolv.conf"

// network is the node's part of the tenants' networks: the fence, the CNI plugin's
// other end and the DNS.
type network struct {
	agent  *agent
	fence  *netpol.Enforcer
	server *podnet.Server
	host   *rest.Config
}

// newNetwork reads the endpoints that are there already. It changes nothing yet:
// what a former agent has put into the kernel goes on.
func newNetwork(a *agent) (*network, error) {
	host, err := clientcmd.BuildConfigFromFlags("", a.AgentKubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read the agent's kubeconfig: %w", err)
	}
	registry, err := podnet.OpenRegistry(a.layout.Endpoints())
	if err != nil {
		return nil, err
	}
	fence, err := netpol.New(netpol.Config{
		NodeName: a.NodeName, NodeIP: a.NodeIP, DNSPort: node.DNSPort, Pods: a.Pods, Services: a.Services,
		Registry: registry, Host: host, Logger: a.Logger,
	})
	if err != nil {
		return nil, err
	}
	server := &podnet.Server{Registry: registry, Fence: fence, Logger: a.Logger}
	return &network{agent: a, fence: fence, server: server, host: host}, nil
}

// run keeps the fence and answers until ctx ends; the fence in the kernel stays.
func (n *network) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.fence.Run(ctx) })
	g.Go(func() error { return n.server.Serve(ctx, n.agent.cniSocket()) })
	g.Go(func() error { return n.resolve(ctx) })
	return g.Wait()
}

// resolve answers the DNS queries of the node's pods.
func (n *network) resolve(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(n.host)
	if err != nil {
		return fmt.Errorf("make a client of the host API: %w", err)
	}
	upstreams, err := nodeResolvers(resolvers)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	services, slices := factory.Core().V1().Services(), factory.Discovery().V1().EndpointSlices()
	synced := []cache.InformerSynced{services.Informer().HasSynced, slices.Informer().HasSynced}
	watching, stop := context.WithCancel(ctx)
	factory.StartWithContext(watching)
	defer func() { stop(); factory.Shutdown() }()
	// Before the names are known, no answer is better than "no such name".
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return nil // ctx has ended
	}
	server, err := dns.Listen(ctx, dns.Config{
		Listen: netip.AddrPortFrom(n.agent.NodeIP, node.DNSPort), ClientAt: n.clientAt,
		Services: services.Lister(), Slices: slices.Lister(), Upstreams: upstreams, Logger: n.agent.Logger,
	})
	if err != nil {
		return err
	}
	return server.Run(ctx)
}

// clientAt names the tenant behind a pod's address, which the fence has made
// unforgeable.
func (n *network) clientAt(a netip.Addr) (dns.Client, bool) {
	f, ok := n.fence.FenceAt(a)
	return dns.Client{Namespace: f.Namespace, ServiceCIDR: f.Services, Internet: f.Internet}, ok
}

// nodeResolvers returns the node's own resolvers; none when it has no such file.
func nodeResolvers(file string) ([]string, error) {
	if _, err := os.Stat(file); os.IsNotExist(err) {
		return nil, nil
	}
	c, err := miekg.ClientConfigFromFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the node's resolvers: %w", err)
	}
	var out []string
	for _, s := range c.Servers {
		out = append(out, net.JoinHostPort(s, c.Port))
	}
	return out, nil
}

// factsLimit bounds reading the kernel's rules for a report.
const factsLimit = 15 * time.Second

// facts returns what the fence means and what the kernel has for a host namespace.
func (n *network) facts(ctx context.Context, namespace, pod string) (netpol.Facts, error) {
	ctx, cancel := context.WithTimeout(ctx, factsLimit)
	defer cancel()
	return n.fence.Facts(ctx, namespace, pod)
}
