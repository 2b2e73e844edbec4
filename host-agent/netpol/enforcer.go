package netpol

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	networkingclient "k8s.io/client-go/kubernetes/typed/networking/v1"
	"k8s.io/client-go/rest"

	"sublet.dev/host-agent/nft"
	"sublet.dev/host-agent/podnet"
	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

var (
	// ErrNotReady is returned while the host API has not yet told the tenants and
	// this node's pod range.
	ErrNotReady = errors.New("the tenants are not known yet: the host API has not answered")
	// ErrUnknownTenant is returned for the host namespace of a tenant that is not
	// known, or has no fence yet.
	ErrUnknownTenant = errors.New("the tenant of this namespace is not known")
)

// Registry is the node's endpoints; podnet's is one.
type Registry interface {
	List() []podnet.Endpoint
	At(netip.Addr) (podnet.Endpoint, bool)
}

// Config is what an Enforcer needs. All fields are required.
type Config struct {
	// NodeName is this node's name in the host API.
	NodeName string
	// NodeIP is the node's address, DNSPort where the node's DNS listens on it.
	NodeIP  netip.Addr
	DNSPort uint16
	// Pods and Services are the ranges of the whole host.
	Pods, Services netip.Prefix
	Registry       Registry
	// Host reads virtualclusters, nodes and pods.
	Host   *rest.Config
	Logger *slog.Logger
}

// Enforcer keeps the node's fence. It is podnet's Fence. All methods are safe for
// concurrent use.
type Enforcer struct {
	Config
	changed chan struct{} // one signal is enough: all is rendered anew

	mu         sync.Mutex // guards what follows, and the kernel's table
	kernel     *nft.Kernel
	world      world
	applied    nft.Table             // what the kernel was told last; zero when that is in doubt
	printed    []string              // how nft prints it, which its versions differ in
	generation uint32                // of the kernel's rules, when they were printed so
	fenced     map[netip.Addr]string // the addresses in it, with whose they are
	judged     judge                 // what connections that exist were last held against
	unjudged   bool                  // the table is another since then
	learned    chan struct{}         // closed when world is another; nil before the first
	policies   networkingclient.NetworkPoliciesGetter
}

// New returns an Enforcer for the caller's network namespace. It changes nothing
// before [Enforcer.Run] or [Enforcer.Sync].
func New(c Config) (*Enforcer, error) {
	kernel, err := nft.Open(TableName)
	if err != nil {
		return nil, err
	}
	return &Enforcer{Config: c, kernel: kernel, changed: make(chan struct{}, 1)}, nil
}

// Run watches the host API and keeps the kernel's table true until ctx ends,
// whoever changes it; then it returns nil and leaves the table as it is. Failures
// are logged and repaired.
func (e *Enforcer) Run(ctx context.Context) error {
	stop, err := e.watch(ctx)
	if err != nil {
		return err
	}
	defer stop()
	ticker := time.NewTicker(repairEvery)
	defer ticker.Stop()
	e.keep(ctx, ticker.C)
	return nil
}

// signal makes Run render anew, soon.
func (e *Enforcer) signal() {
	select {
	case e.changed <- struct{}{}:
	default:
	}
}

// Admits returns nil when pods of a host namespace can be fenced: those of a known
// tenant, and those of namespaces that are no tenant's. It returns [ErrNotReady] or
// [ErrUnknownTenant] otherwise.
func (e *Enforcer) Admits(namespace string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.world.ready() {
		return ErrNotReady
	}
	if _, ok := e.world.fences[namespace]; !ok && tenant.IsHostNamespace(namespace) {
		return fmt.Errorf("namespace %s: %w", namespace, ErrUnknownTenant)
	}
	return nil
}

// Sync returns nil once the kernel has the rules for all endpoints of the registry
// and none for others, and no connection of an address that lost its pod. What
// somebody else changed in the table meanwhile is put back, and the connections of
// all the node's pods are forgotten: those that the rules allow go on as new ones.
// Before the tenants are known it changes nothing and returns [ErrNotReady].
func (e *Enforcer) Sync(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.world.ready() {
		return ErrNotReady
	}
	e.inspect(ctx)
	state := e.state()
	table := Render(state)
	if !reflect.DeepEqual(table, e.applied) {
		e.unjudged = true
		if err := e.apply(ctx, table); err != nil {
			return err
		}
	}
	now := state.owners()
	if err := e.forget(state.NodePods, now); err != nil {
		return err
	}
	e.fenced = now
	return e.rejudge(state)
}

// rejudge forgets the connections that policies have come to forbid; the caller must
// hold mu.
func (e *Enforcer) rejudge(s State) error {
	if !e.unjudged {
		return nil
	}
	now := judgeOf(s)
	if reflect.DeepEqual(now, e.judged) {
		e.unjudged = false
		return nil
	}
	if err := forgetDenied(now); err != nil {
		return err
	}
	for _, t := range now.Excess {
		e.Logger.Warn("a tenant's network policies are too much for a node: the pods that they select reach nothing", "tenant", t)
	}
	e.judged, e.unjudged = now, false
	return nil
}

// apply puts a table into the kernel and notes how nft prints it; the caller must
// hold mu.
func (e *Enforcer) apply(ctx context.Context, table nft.Table) error {
	e.applied = nft.Table{} // in doubt until it is read back
	if err := e.kernel.Apply(ctx, table); err != nil {
		return err
	}
	now, err := generation()
	if err != nil {
		return err
	}
	printed, err := readLines(ctx, e.kernel)
	if err != nil {
		return err
	}
	if n := len(table.Lines()); len(printed) != n {
		return fmt.Errorf("the kernel has %d rules and elements of the fence instead of %d", len(printed), n)
	}
	e.applied, e.printed, e.generation = table, printed, now
	return nil
}

// forget forgets the connections of addresses that changed hands since the last
// time; the first time, of all addresses of this node's range without endpoint.
func (e *Enforcer) forget(nodePods []netip.Prefix, now map[netip.Addr]string) error {
	if e.fenced == nil {
		return forgetConnections(func(a netip.Addr) bool {
			_, known := now[a]
			return !known && slices.ContainsFunc(nodePods, func(p netip.Prefix) bool { return p.Contains(a) })
		})
	}
	lost := map[netip.Addr]bool{}
	for a, owner := range e.fenced {
		if now[a] != owner {
			lost[a] = true
		}
	}
	if len(lost) == 0 {
		return nil
	}
	return forgetConnections(func(a netip.Addr) bool { return lost[a] })
}

// state is what to render now; the caller must hold mu.
func (e *Enforcer) state() State {
	s := State{
		Cluster: policy.Cluster{
			PodCIDRs: []netip.Prefix{e.Pods}, ServiceCIDRs: []netip.Prefix{e.Services},
			Nodes: e.world.nodeAddresses(e.NodeIP), Blocked: policy.Blocked(), Private: policy.Private(),
		},
		NodePods: e.world.nodePods,
		DNS:      e.dns(),
	}
	tenants := map[string]*Tenant{}
	for _, endpoint := range e.Registry.List() {
		fence, known := e.world.fences[endpoint.Namespace]
		if known && tenants[endpoint.Namespace] == nil {
			tenants[endpoint.Namespace] = e.world.tenant(fence)
		}
		switch {
		case known:
			tenants[endpoint.Namespace].add(endpoint, e.world)
		case tenant.IsHostNamespace(endpoint.Namespace):
			s.Orphans = append(s.Orphans, endpoint)
		default:
			s.System = append(s.System, endpoint)
		}
	}
	for _, t := range tenants {
		t.Ingress = e.world.ingress(t.Fence, s.System)
		s.Tenants = append(s.Tenants, *t)
	}
	slices.SortFunc(s.Tenants, func(a, b Tenant) int { return compare(a.Fence.Tenant, b.Fence.Tenant) })
	return s
}

func compare(a, b tenant.ID) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (e *Enforcer) dns() netip.AddrPort { return netip.AddrPortFrom(e.NodeIP, e.DNSPort) }

// FenceAt returns the fence of the tenant whose pod on this node has an address.
func (e *Enforcer) FenceAt(a netip.Addr) (policy.Fence, bool) {
	endpoint, ok := e.Registry.At(a)
	if !ok {
		return policy.Fence{}, false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	fence, ok := e.world.fences[endpoint.Namespace]
	return fence, ok
}

// Cleanup removes the fence's table from the caller's network namespace. It returns
// nil when there is none. Pods must be gone: without the table nothing is fenced.
func Cleanup(ctx context.Context) error {
	kernel, err := nft.Open(TableName)
	if err != nil {
		return err
	}
	return kernel.Delete(ctx)
}
