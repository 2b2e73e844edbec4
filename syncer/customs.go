package syncer

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	extensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/rules"
)

// kindDefinition is the pass that gives the tenant's API the kinds of rules.
const kindDefinition = "CustomResourceDefinition"

const (
	// definitionSoon is how soon a definition that was written is looked at again: its
	// kind is served moments later.
	definitionSoon = 200 * time.Millisecond
	// reasonDefinition is that of events on definitions of the tenant's own.
	reasonDefinition = "DefinitionInTheWay"
)

var definitions = apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions")

// customs keep the custom resources in step that the plan's rules name: each rule that
// can work has a custom, which comes and goes while the syncer runs.
type customs struct {
	*Syncer
	extensions extensions.Interface // of the tenant
	objects    dynamic.Interface    // of the tenant
	hostWrite  dynamic.Interface
	views      cache.SharedIndexInformer // metadata of the tenant's definitions

	mu      sync.Mutex
	ctx     context.Context        // guarded by mu: that of Run; nil before and after
	watched bool                   // guarded by mu: views runs
	group   sync.WaitGroup         // what ctx ends; Add only with mu held
	wanted  map[string]*rules.Rule // guarded by mu: by definition
	running map[string]*custom     // guarded by mu: by definition
	stuck   map[string]string      // guarded by mu: why a wanted rule does not work
	told    map[string]string      // guarded by mu: what of that was logged last
}

// newCustoms makes the clients; write has the tenant's identity on the host.
func (s *Syncer) newCustoms(own, write *rest.Config) (*customs, error) {
	c := &customs{Syncer: s, wanted: map[string]*rules.Rule{}, running: map[string]*custom{}, stuck: map[string]string{}, told: map[string]string{}}
	var err error
	if c.extensions, err = extensions.NewForConfig(unlimited(own)); err != nil {
		return nil, fmt.Errorf("syncer: client of the tenant's definitions: %w", err)
	}
	if c.objects, err = dynamic.NewForConfig(unlimited(own)); err != nil {
		return nil, fmt.Errorf("syncer: client of the tenant's custom resources: %w", err)
	}
	if c.hostWrite, err = dynamic.NewForConfig(unlimited(write)); err != nil {
		return nil, fmt.Errorf("syncer: client of the host's custom resources: %w", err)
	}
	marks, err := metadata.NewForConfig(unlimited(own))
	if err != nil {
		return nil, fmt.Errorf("syncer: metadata client of the tenant: %w", err)
	}
	c.views = metadatainformer.NewFilteredMetadataInformer(marks, definitions, "", 0, cache.Indexers{}, nil).Informer()
	if err := c.views.SetTransform(withoutManagedFields); err != nil {
		return nil, fmt.Errorf("syncer: %w", err)
	}
	_, err = s.engine.Listen(c.views, keysOf(c.ofDefinition))
	return c, err
}

// SetCustomResources says which rules for custom resources the tenant's plan has from
// now on. It may be called at any time.
func (s *Syncer) SetCustomResources(specs []v1alpha1.CustomResourceRule) {
	wanted := map[string]*rules.Rule{}
	for _, spec := range specs {
		rule, err := rules.Compile(spec)
		if err != nil {
			s.logger.Error("a rule of the plan cannot be used", "error", err)
			continue
		}
		wanted[rule.Name()] = rule
	}
	c := s.customs
	c.mu.Lock()
	names := slices.AppendSeq(slices.Collect(maps.Keys(c.wanted)), maps.Keys(wanted))
	c.wanted = wanted
	clear(c.stuck)
	c.mu.Unlock()
	for _, name := range names {
		s.engine.Add(keys(tenant.Name{Name: name}, kindDefinition)...)
	}
}

// run lets rules work until ctx ends, and returns when all of them have ended.
func (c *customs) run(ctx context.Context) {
	c.mu.Lock()
	c.ctx = ctx
	names := slices.Collect(maps.Keys(c.wanted))
	c.mu.Unlock()
	for _, name := range names {
		c.engine.Add(keys(tenant.Name{Name: name}, kindDefinition)...)
	}
	<-ctx.Done()
	c.mu.Lock()
	c.ctx = nil
	c.mu.Unlock()
	c.group.Wait()
}

// ofDefinition: a definition of a rule, on either side.
func (c *customs) ofDefinition(definition *metav1.PartialObjectMetadata) []engine.Key {
	if _, wanted := c.rule(definition.Name); !wanted {
		return nil
	}
	return keys(tenant.Name{Name: definition.Name}, kindDefinition)
}

func (c *customs) rule(name string) (*rules.Rule, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.wanted[name]
	return r, ok
}

// Kind implements engine.Pass.
func (c *customs) Kind() string { return kindDefinition }

// Reconcile implements engine.Pass: it makes the tenant's definition of a rule what
// the host's is, and lets the rule work once the tenant's API serves the kind.
func (c *customs) Reconcile(ctx context.Context, name tenant.Name) (time.Duration, error) {
	rule, wanted := c.rule(name.Name)
	c.stopOther(name.Name, rule)
	if !wanted {
		return 0, c.tidy(ctx, name.Name)
	}
	c.watchViews()
	hostDefinition, err := c.config.Host.extensions.ApiextensionsV1().CustomResourceDefinitions().Get(ctx, name.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		c.stick(name.Name, "the host has no definition of that name")
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the host's definition %s: %w", name.Name, err)
	}
	want, err := rule.Definition(hostDefinition)
	if err != nil {
		c.stick(name.Name, err.Error())
		return 0, nil
	}
	return c.define(ctx, rule, want)
}

// define brings the tenant's definition in step with want.
func (c *customs) define(ctx context.Context, rule *rules.Rule, want *apiextensionsv1.CustomResourceDefinition) (time.Duration, error) {
	api := c.extensions.ApiextensionsV1().CustomResourceDefinitions()
	have, err := api.Get(ctx, want.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = api.Create(ctx, want, metav1.CreateOptions{})
		return definitionSoon, wrapDefinition("make", want.Name, err)
	}
	if err != nil {
		return 0, wrapDefinition("read", want.Name, err)
	}
	if !rules.IsView(have) {
		c.stick(want.Name, "the tenant has a definition of its own of that name")
		c.held.tell(have, corev1.EventTypeWarning, reasonDefinition, "your provider offers this kind; as long as this definition is here, which is yours, its objects lead to nothing")
		return 0, nil
	}
	merged, difference := rules.MergeDefinition(have, want)
	switch {
	case have.DeletionTimestamp != nil:
		return definitionSoon, nil
	case difference == engine.Changed:
		_, err = api.Update(ctx, merged, metav1.UpdateOptions{})
		return definitionSoon, wrapDefinition("change", want.Name, err)
	case !rules.Established(have):
		return definitionSoon, nil
	}
	return 0, c.start(rule, rule.HasStatus(have))
}

func wrapDefinition(verb, name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s the tenant's definition %s: %w", verb, name, err)
}

// tidy removes the definition of a rule that is gone if nothing was made of it. One
// with objects is the tenant's from then on.
func (c *customs) tidy(ctx context.Context, name string) error {
	api := c.extensions.ApiextensionsV1().CustomResourceDefinitions()
	have, err := api.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && (!rules.IsView(have) || have.DeletionTimestamp != nil) {
		return nil
	}
	if err != nil {
		return wrapDefinition("read", name, err)
	}
	for _, v := range have.Spec.Versions {
		if !v.Served {
			continue
		}
		resource := apiextensionsv1.SchemeGroupVersion.WithResource(have.Spec.Names.Plural)
		resource.Group, resource.Version = have.Spec.Group, v.Name
		list, err := c.objects.Resource(resource).List(ctx, metav1.ListOptions{Limit: 1})
		if err != nil {
			return fmt.Errorf("list the tenant's %s: %w", name, err)
		}
		if len(list.Items) > 0 {
			return nil
		}
	}
	err = api.Delete(ctx, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &have.UID, ResourceVersion: &have.ResourceVersion}})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return wrapDefinition("remove", name, err)
}

// stick ends the work of a rule, and notes why.
func (c *customs) stick(name, why string) {
	c.stopOther(name, nil)
	c.mu.Lock()
	c.stuck[name] = why
	known := c.told[name] == why
	c.told[name] = why
	c.mu.Unlock()
	if !known {
		c.logger.Warn("a rule of the plan does not work", "definition", name, "reason", why)
	}
}

// watchViews watches the tenant's definitions from the first rule on.
func (c *customs) watchViews() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watched || c.ctx == nil {
		return
	}
	c.watched = true
	ctx := c.ctx
	c.group.Go(func() { c.views.RunWithContext(ctx) })
}

// keys are those of all rules.
func (c *customs) keys() []engine.Key {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []engine.Key
	for name := range c.wanted {
		all = append(all, keys(tenant.Name{Name: name}, kindDefinition)...)
	}
	return all
}

// each calls do for the rules that work.
func (c *customs) each(do func(*custom)) {
	c.mu.Lock()
	running := slices.Collect(maps.Values(c.running))
	c.mu.Unlock()
	for _, custom := range running {
		do(custom)
	}
}

// uses says whether a custom resource that goes to the host refers to an object of the
// tenant's; sure is false while that is not known.
func (c *customs) uses(index, key string) (used, sure bool) {
	c.mu.Lock()
	sure = true
	for name, rule := range c.wanted {
		if works := c.running[name]; rule.ToHost() && c.stuck[name] == "" && (works == nil || !works.ready()) {
			sure = false
		}
	}
	c.mu.Unlock()
	c.each(func(custom *custom) {
		if custom.rule.ToHost() {
			found, err := custom.tenantObjects.GetIndexer().IndexKeys(index, key)
			used = used || err == nil && len(found) > 0
		}
	})
	return used, sure
}

// quiet says whether nothing is going on, and nothing on the host can bring something
// about: while a tenant has objects there, their status may come at any time.
func (c *customs) quiet() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, rule := range c.wanted {
		works := c.running[name]
		if c.stuck[name] == "" && (works == nil || !works.ready()) || works != nil && rule.ToHost() && works.moves() {
			return false
		}
	}
	return true
}
