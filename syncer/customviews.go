package syncer

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/rules"
)

// customViews keeps the tenant's views of what a rule shows of the host. Objects of
// the kind that the tenant makes by itself are its own, and lead to nothing.
type customViews struct {
	*custom
	mirror, status engine.Pass
}

func (c *custom) views() engine.Pass {
	p := &customViews{custom: c}
	p.mirror = &engine.Mirror[object, object]{
		Name: c.kind(), Source: p.shown, Target: p, Merge: c.rule.MergeView,
		Want: func(_ context.Context, hostObject, _ object) (engine.Want[object], error) {
			if view := c.rule.View(hostObject); view != nil {
				return engine.Be(view), nil
			}
			return engine.Leave[object](), nil
		},
	}
	p.status = &engine.Adjust[object, object]{
		Name: c.kind(), Source: p.shown, Target: p.Cached,
		Pair: func(hostObject, view object) bool {
			owner, err := p.Owner(view)
			return err == nil && owner == hostObject.GetUID()
		},
		Merge: func(hostObject, view object) (object, bool) { return c.rule.ViewStatus(hostObject, view) },
		Write: c.writeStatus,
	}
	return p
}

// Kind implements engine.Pass.
func (p *customViews) Kind() string { return p.kind() }

// Reconcile implements engine.Pass.
func (p *customViews) Reconcile(ctx context.Context, name tenant.Name) (time.Duration, error) {
	if !p.ready() {
		return 0, nil
	}
	again, err := p.mirror.Reconcile(ctx, name)
	if errors.Is(err, engine.ErrForeign) {
		if own, ok := p.Cached(name); ok {
			if _, shown := p.shown(name); shown {
				p.held.tell(own, corev1.EventTypeWarning, reasonDefinition, "your provider offers an object of this name; as long as this one is here, which is yours, it is not shown")
			}
		}
		return 0, nil
	}
	if err != nil || !p.hasStatus {
		return again, err
	}
	return p.status.Reconcile(ctx, name)
}

// shown returns the object of the host that the tenant sees under a name.
func (p *customViews) shown(n tenant.Name) (object, bool) {
	key := n.Name
	if ns := p.rule.HostNamespace(); ns != "" {
		key = ns + "/" + n.Name
	}
	hostObject, ok := engine.FromCache[object](p.hostObjects, key)
	return hostObject, ok && p.rule.Shows(hostObject) && p.rule.ViewName(n.Name) == n
}

// Cached implements engine.Target.
func (p *customViews) Cached(n tenant.Name) (object, bool) { return p.tenantObject(n) }

// Live implements engine.Target.
func (p *customViews) Live(ctx context.Context, n tenant.Name) (object, bool, error) {
	view, err := p.onTenant.Namespace(n.Namespace).Get(ctx, n.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, false, nil
	}
	return view, err == nil, err
}

// Owner implements engine.Target. What says that it is a view is one; who says so of
// an object of its own loses it.
func (p *customViews) Owner(view object) (types.UID, error) {
	if of := view.GetAnnotations()[rules.AnnotationView]; of != "" {
		return types.UID(of), nil
	}
	return "", fmt.Errorf("%w: %s %q was made by the tenant", engine.ErrForeign, p.kind(), view.GetName())
}

// Writer implements engine.Target.
func (p *customViews) Writer(n tenant.Name) engine.Writer[object] {
	return resource{p.onTenant.Namespace(n.Namespace)}
}
