package syncer

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/cache"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/translate"
)

// ExplainObject tells everything about the tenant's object of that name, of a kind
// (RESOURCE.GROUP) that a rule of the plan brings to the host. It is ErrNotFound when
// there is no such object on either side, or no such rule.
func (s *Syncer) ExplainObject(ctx context.Context, kind string, name tenant.Name) (*Explanation, error) {
	var works *custom
	s.customs.each(func(c *custom) {
		if c.kind() == kind && c.rule.ToHost() {
			works = c
		}
	})
	if works == nil {
		return nil, fmt.Errorf("%s: %s: %w", kind, s.customs.whyNot(kind), ErrNotFound)
	}
	if !cache.WaitForCacheSync(ctx.Done(), works.seen) {
		return nil, fmt.Errorf("explain %s: %w", name, context.Cause(ctx))
	}
	tenantObject, err := works.onTenant.Namespace(name.Namespace).Get(ctx, name.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		tenantObject, err = nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the tenant's %s %s: %w", kind, name, err)
	}
	host := works.onHost(s.customs)
	hostObject, onHost, err := host.Live(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("read the host's %s of %s: %w", kind, name, err)
	}
	if !onHost {
		hostObject = nil
	}
	if tenantObject == nil && hostObject == nil {
		return nil, fmt.Errorf("%s %s: %w", kind, name, ErrNotFound)
	}
	return works.explain(host, name, tenantObject, hostObject), nil
}

// explain describes a pair of objects; one of them may be nil.
func (c *custom) explain(host engine.Host[object], name tenant.Name, tenantObject, hostObject object) *Explanation {
	e := c.explanation(name, string(host.HostName(name)), c.kinds())
	e.Kind, e.Pairing = c.kind(), pairObjects(host, tenantObject, hostObject, "")
	e.TenantObject, e.HostObject = withoutManaged(tenantObject), withoutManaged(hostObject)
	if tenantObject != nil {
		e.Fields = c.fates(tenantObject)
	}
	return e
}

// fates says what becomes of the fields of a tenant's object.
func (c *custom) fates(tenantObject object) []translate.Fate {
	if !c.routes() {
		return c.rule.Fates(c.config.Tenant, tenantObject)
	}
	to, known := c.route(c.customs, tenantObject)
	if !known || to.fates == nil {
		return []translate.Fate{{Field: "spec", Fate: "dropped", Reason: "it is of no gateway class of the plan, or that is not known yet"}}
	}
	return to.fates()
}

// withoutManaged is a copy without what the API keeps for itself.
func withoutManaged(o *unstructured.Unstructured) map[string]any {
	if o == nil {
		return nil
	}
	o = o.DeepCopy()
	o.SetManagedFields(nil)
	return o.Object
}

// whyNot says why no rule works for a kind.
func (c *customs) whyNot(kind string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch _, wanted := c.wanted[kind]; {
	case c.stuck[kind] != "":
		return "the plan's rule does not work: " + c.stuck[kind]
	case wanted:
		return "the plan's rule does not bring it to the host, or does not work yet"
	default:
		return "the tenant's plan has no rule for this kind"
	}
}
