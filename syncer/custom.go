package syncer

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/hostcache"
	"sublet.dev/syncer/rules"
	"sublet.dev/syncer/translate"
)

// object is an object of a custom kind.
type object = *unstructured.Unstructured

// customPatience is how long a write waits for the first list of its kind. The host may
// be unable to list a kind of its operators, whose webhook fails for example: no more than
// one write of each such kind keeps a worker waiting for that.
const customPatience = 5 * time.Second

// custom is a rule that works.
type custom struct {
	*Syncer
	rule          *rules.Rule
	hasStatus     bool // the status of the tenant's objects is written by itself
	tenantObjects cache.SharedIndexInformer
	onTenant      dynamic.NamespaceableResourceInterface
	hostObjects   cache.Store     // nil for what stays in the tenant
	hostView      *hostcache.View // what hostObjects are of; nil unless it goes to the host
	looking       chan struct{}   // its one place has who waits for hostView
	leaveHost     func()          // lets go of hostObjects, and waits for what filled them
	seen          func() bool     // all objects of both sides were, once
	cancel        func()
	ended         sync.WaitGroup
}

// The passes of a rule.
func (c *custom) kind() string        { return c.rule.Name() }
func (c *custom) kindStatus() string  { return c.rule.Name() + "/status" }
func (c *custom) kindSecrets() string { return c.rule.Name() + "/secrets" }

func (c *custom) kinds() []string {
	switch {
	case c.rule.InTenant():
		return nil
	case c.routes():
		return []string{c.kind(), c.kindStatus(), c.kindAsks()}
	case c.rule.ToHost():
		return []string{c.kind(), c.kindStatus(), c.kindSecrets()}
	}
	return []string{c.kind()}
}

// resource makes a client of a kind one that the engine takes.
type resource struct{ dynamic.ResourceInterface }

// Get implements engine.Reader.
func (r resource) Get(ctx context.Context, name string, o metav1.GetOptions) (object, error) {
	return r.ResourceInterface.Get(ctx, name, o)
}

// Create implements engine.Writer.
func (r resource) Create(ctx context.Context, u object, o metav1.CreateOptions) (object, error) {
	return r.ResourceInterface.Create(ctx, u, o)
}

// Update implements engine.Writer.
func (r resource) Update(ctx context.Context, u object, o metav1.UpdateOptions) (object, error) {
	return r.ResourceInterface.Update(ctx, u, o)
}

// Delete implements engine.Writer.
func (r resource) Delete(ctx context.Context, name string, o metav1.DeleteOptions) error {
	return r.ResourceInterface.Delete(ctx, name, o)
}

// start lets a rule work, unless it does or Run has ended.
func (c *customs) start(rule *rules.Rule, hasStatus bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running[rule.Name()] != nil || c.ctx == nil || c.wanted[rule.Name()] != rule {
		return nil
	}
	works := &custom{
		Syncer: c.Syncer, rule: rule, hasStatus: hasStatus, onTenant: c.objects.Resource(rule.Resource()),
		looking: make(chan struct{}, 1), leaveHost: func() {},
	}
	if err := works.watch(c.ctx, c.objects); err != nil {
		return fmt.Errorf("watch %s: %w", rule.Name(), err)
	}
	for _, pass := range works.passes(c) {
		c.engine.Put(pass)
	}
	ctx, cancel := context.WithCancel(c.ctx)
	works.cancel = cancel
	for _, work := range []func(){
		func() { works.tenantObjects.RunWithContext(ctx) },
		func() { <-ctx.Done(); works.leaveHost() },
		func() {
			if !cache.WaitForCacheSync(ctx.Done(), works.seen) {
				return
			}
			works.engine.Add(works.everything()...)
			if ofGateways(works.kind()) {
				works.engine.Add(c.rerouted()...)
			}
		},
	} {
		works.ended.Add(1)
		c.group.Go(func() { defer works.ended.Done(); work() })
	}
	c.running[rule.Name()] = works
	delete(c.stuck, rule.Name())
	return nil
}

// stopOther ends the work for a definition unless it is by this rule.
func (c *customs) stopOther(name string, rule *rules.Rule) {
	c.mu.Lock()
	works := c.running[name]
	if rule == nil {
		delete(c.stuck, name)
	}
	if works == nil || rule != nil && rule.Same(works.rule) {
		if works != nil {
			c.wanted[name] = works.rule // it goes on
		}
		c.mu.Unlock()
		return
	}
	delete(c.running, name)
	c.mu.Unlock()
	for _, kind := range works.kinds() {
		c.engine.Drop(kind)
	}
	works.cancel()
	works.ended.Wait()
}

// watch begins to follow the host, and makes the informer of the tenant's objects.
func (c *custom) watch(ctx context.Context, tenantObjects dynamic.Interface) error {
	indexers := cache.Indexers{
		byConfigMap: index(func(o object) []string { return c.referred(o, "ConfigMap") }),
		bySecret:    index(func(o object) []string { return c.referred(o, "Secret") }),
	}
	c.tenantObjects = dynamicinformer.NewFilteredDynamicInformer(tenantObjects, c.rule.Resource(), metav1.NamespaceAll, 0, indexers, nil).Informer()
	if err := c.tenantObjects.SetTransform(withoutManagedFields); err != nil {
		return err
	}
	tenantSeen, err := c.engine.Listen(c.tenantObjects, keysOf(c.ofTenantObject))
	if c.seen = tenantSeen; err != nil || c.rule.InTenant() {
		return err
	}
	hostSeen, err := c.watchHost(ctx)
	c.seen = func() bool { return tenantSeen() && hostSeen() }
	return err
}

// watchHost has what syncers made in the tenant's namespace in view, of which the tenant
// has its own part, or what the rule shows, which is the same for all tenants of the cell.
func (c *custom) watchHost(ctx context.Context) (seen cache.InformerSynced, err error) {
	made := ""
	if c.rule.ToHost() {
		made = tenant.LabelManagedBy + "=" + tenant.ManagedBySyncer
	}
	kind := hostcache.Kind{
		Resource: c.kind() + "/" + c.rule.Resource().Version, Example: &unstructured.Unstructured{},
		Source: hostcache.Objects(c.config.Host.objects, c.rule.Resource(), made), Transform: withoutManagedFields,
	}
	if !c.rule.ToHost() {
		shown, err := c.config.Host.spaces.Common(ctx, kind, c.rule.HostNamespace())
		if err != nil {
			return nil, err
		}
		c.hostObjects, c.leaveHost = shown.GetStore(), shown.Leave
		if seen, err = c.engine.Listen(shown, keysOf(c.ofHostObject)); err != nil {
			shown.Leave()
		}
		return seen, err
	}
	c.hostView = c.caches.host.space.Guest(kind)
	c.hostObjects = c.hostView.GetStore()
	has, err := c.engine.Listen(c.hostView, keysOf(c.ofHostObject))
	if err == nil {
		c.leaveHost, err = c.caches.host.space.LetIn(c.hostView)
	}
	return once(has), err
}

// once is what was true at any time: a view that looks again has been seen.
func once(is func() bool) func() bool {
	var was atomic.Bool
	return func() bool {
		if !was.Load() && is() {
			was.Store(true)
		}
		return was.Load()
	}
}

// ready says whether a pass may decide: on half a picture it would take what it has
// not seen for gone.
func (c *custom) ready() bool { return c.seen() }

// referred are the keys of the objects of a kind that an object refers to.
func (c *custom) referred(tenantObject object, kind string) []string {
	if !c.rule.ToHost() {
		return nil
	}
	var names []string
	for _, u := range c.rule.Uses(c.config.Tenant, tenantObject) {
		if u.Kind == kind && !u.Result {
			names = append(names, u.Name)
		}
	}
	return inNamespace(tenantObject, names)
}

// ofTenantObject: an object, and what is on the host because it refers to it.
func (c *custom) ofTenantObject(tenantObject object) []engine.Key {
	all := keys(translate.NameOf(tenantObject), c.kinds()...)
	if ofGateways(c.kind()) {
		return append(all, c.aroundRoutes(tenantObject)...)
	}
	if !c.rule.ToHost() {
		return all
	}
	all = append(all, c.claimsFrom(translate.NameOf(tenantObject))...)
	for _, u := range c.rule.Uses(c.config.Tenant, tenantObject) {
		if (u.Kind == kindSecret || u.Kind == kindConfigMap) && !u.Result {
			all = append(all, keys(tenant.Name{Namespace: tenantObject.GetNamespace(), Name: u.Name}, u.Kind)...)
		}
	}
	return all
}

// ofHostObject: the tenant's object that a host object was made for, or the view of it.
func (c *custom) ofHostObject(hostObject object) []engine.Key {
	if !c.rule.ToHost() {
		return keys(c.rule.ViewName(hostObject.GetName()), c.kinds()...)
	}
	all := ofHost[object](c.Syncer, c.kinds()...)(hostObject)
	if name, ok := c.owner(hostObject); ok {
		all = append(all, c.claimsFrom(name)...)
	}
	return all
}

// everything lists the keys of all objects of both sides.
func (c *custom) everything() []engine.Key {
	var all []engine.Key
	for _, item := range c.tenantObjects.GetStore().List() {
		all = append(all, keysOf(c.ofTenantObject)(item)...)
	}
	if c.hostObjects == nil {
		return all // of what stays in the tenant
	}
	for _, item := range c.hostObjects.List() {
		all = append(all, keysOf(c.ofHostObject)(item)...)
	}
	return all
}

// tenantObject returns the tenant's object from the cache. It is shared.
func (c *custom) tenantObject(n tenant.Name) (object, bool) {
	return fromTenant[object](c.tenantObjects)(n)
}

// onHost is the tenant's host namespace as the target of the kind.
func (c *custom) onHost(all *customs) engine.Host[object] {
	ns := c.config.Tenant.HostNamespace
	return engine.Host[object]{
		Tenant: c.config.Tenant, Cache: c.hostObjects,
		Read: resource{c.config.Host.objects.Resource(c.rule.Resource()).Namespace(ns)},
		Write: watched[object]{
			Writer: resource{all.hostWrite.Resource(c.rule.Resource()).Namespace(ns)},
			view:   c.hostView, patience: customPatience, one: c.looking,
		},
	}
}

// passes are those of the rule.
func (c *custom) passes(all *customs) []engine.Pass {
	switch {
	case c.rule.InTenant():
		return nil
	case c.routes():
		return c.routePasses(all)
	case !c.rule.ToHost():
		return []engine.Pass{c.views()}
	}
	host := c.onHost(all)
	return []engine.Pass{c.down(host), c.up(host), &customSecrets{c, host}}
}
