package syncer

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/translate"
)

// routePasses are the passes of a rule for Gateways or HTTPRoutes.
func (c *custom) routePasses(all *customs) []engine.Pass {
	host := c.onHost(all)
	return []engine.Pass{c.routeDown(all, host), &routeStatus{c, all, host}, c.routeAsks(all, host)}
}

// routeDown mirrors the tenant's Gateways or HTTPRoutes to the host.
type routeDown struct {
	*custom
	all    *customs
	mirror engine.Pass
	told   sync.Map // by tenant.Name: what the host last said against an object
}

func (c *custom) routeDown(all *customs, host engine.Host[object]) engine.Pass {
	p := &routeDown{custom: c, all: all}
	p.mirror = &engine.Mirror[object, object]{Name: c.kind(), Source: c.living, Target: host, Want: p.want, Merge: c.rule.Merge}
	return p
}

// living returns a tenant's object that is not being deleted.
func (c *custom) living(n tenant.Name) (object, bool) {
	o, ok := c.tenantObject(n)
	return o, ok && o.GetDeletionTimestamp() == nil
}

// Kind implements engine.Pass.
func (p *routeDown) Kind() string { return p.kind() }

// Reconcile implements engine.Pass.
func (p *routeDown) Reconcile(ctx context.Context, name tenant.Name) (time.Duration, error) {
	if !p.ready() {
		return 0, nil // all keys come again when it is
	}
	again, err := p.mirror.Reconcile(ctx, name)
	tenantObject, ok := p.living(name)
	if !ok || !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err) {
		p.told.Delete(name)
		return again, err
	}
	why := fmt.Sprint(tenantObject.GetUID(), tenantObject.GetGeneration())
	if before, _ := p.told.Swap(name, why); before != why && !p.replanned.recently(p.config.Clock.Now()) {
		p.held.tell(tenantObject, corev1.EventTypeWarning, reasonHeld, "it is not served: the host takes no more of them, or not this one")
	}
	return again, err
}

func (p *routeDown) want(_ context.Context, tenantObject, hostObject object) (engine.Want[object], error) {
	to, known := p.route(p.all, tenantObject)
	switch {
	case !known:
		return engine.Leave[object](), nil
	case to.spec == nil && to.serves && !to.answered && hostObject != nil:
		return engine.Leave[object](), nil // until the manager has said what it has
	case to.spec == nil:
		return engine.Gone[object](nil), nil
	}
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(to.spec)
	if err != nil {
		return engine.Want[object]{}, fmt.Errorf("the host's spec of %s: %w", translate.NameOf(tenantObject), err)
	}
	want, refusals := p.rule.With(p.config.Tenant, tenantObject, map[string]any{"spec": fields})
	if len(refusals) > 0 {
		p.held.tell(tenantObject, corev1.EventTypeWarning, reasonHeld, reasons(refusals))
		return engine.Gone[object](nil), nil
	}
	return engine.Be(want), nil
}

// routeStatus tells the tenant what becomes of its Gateways or HTTPRoutes, on the host or
// not.
type routeStatus struct {
	*custom
	all  *customs
	host engine.Host[object]
}

// Kind implements engine.Pass.
func (p *routeStatus) Kind() string { return p.kindStatus() }

// Reconcile implements engine.Pass.
func (p *routeStatus) Reconcile(ctx context.Context, name tenant.Name) (time.Duration, error) {
	tenantObject, ok := p.living(name)
	if !p.ready() || !ok {
		return 0, nil
	}
	to, known := p.route(p.all, tenantObject)
	if !known || to.status == nil {
		return 0, nil
	}
	hostObject, onHost := p.host.Cached(name)
	if owner, err := p.host.Owner(orEmpty(hostObject)); !onHost || err != nil || owner != tenantObject.GetUID() {
		hostObject = nil
	}
	merged, changed, err := to.status(hostObject)
	if err != nil || !changed {
		return 0, err
	}
	if err := p.writeStatus(ctx, merged); err != nil {
		return 0, fmt.Errorf("write the status of %s: %w", name, err)
	}
	return 0, nil
}

func orEmpty(o object) object {
	if o == nil {
		return &unstructured.Unstructured{}
	}
	return o
}

// routeAsks keeps what asks for the hostnames of a Gateway or an HTTPRoute, at least as
// long as the host serves it.
type routeAsks struct {
	*custom
	host   engine.Host[object]
	mirror engine.Pass
}

func (c *custom) routeAsks(all *customs, host engine.Host[object]) engine.Pass {
	return &routeAsks{c, host, &engine.Mirror[object, *corev1.ConfigMap]{
		Name: c.kindAsks(), Source: c.living, Target: c.hostConfigMaps(c.suffix()), Merge: translate.MergeHostnames,
		Want: func(_ context.Context, tenantObject object, _ *corev1.ConfigMap) (engine.Want[*corev1.ConfigMap], error) {
			to, known := c.route(all, tenantObject)
			_, onHost := host.Cached(translate.NameOf(tenantObject))
			switch {
			case !known, onHost && (!to.serves || len(to.asks) == 0):
				return engine.Leave[*corev1.ConfigMap](), nil
			case !to.serves || len(to.asks) == 0:
				return engine.Gone[*corev1.ConfigMap](nil), nil
			}
			return engine.Be(c.t.Asks(tenantObject, c.suffix(), to.asks)), nil
		},
	}}
}

// Kind implements engine.Pass.
func (p *routeAsks) Kind() string { return p.kindAsks() }

// Reconcile implements engine.Pass.
func (p *routeAsks) Reconcile(ctx context.Context, name tenant.Name) (time.Duration, error) {
	_, lives := p.living(name)
	if _, onHost := p.host.Cached(name); !p.ready() || !lives && onHost {
		return 0, nil // its end brings us back
	}
	return p.mirror.Reconcile(ctx, name)
}
