package syncer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/rules"
	"sublet.dev/syncer/translate"
)

// finalizer, on a tenant's object of a rule, keeps it until the host's is gone: what
// the host's controllers have to end for it has ended then.
const finalizer = tenant.Domain + "/host"

// reasonCustomRefused is that of events on objects that do not get to the host.
const reasonCustomRefused = "NotOnHost"

// customDown mirrors the tenant's objects of a rule to the host.
type customDown struct {
	*custom
	host   engine.Host[object]
	mirror engine.Pass
}

func (c *custom) down(host engine.Host[object]) engine.Pass {
	p := &customDown{custom: c, host: host}
	p.mirror = &engine.Mirror[object, object]{
		Name: c.kind(), Target: host, Want: p.want, Merge: c.rule.Merge,
		Source: func(n tenant.Name) (object, bool) {
			tenantObject, ok := c.tenantObject(n)
			return tenantObject, ok && tenantObject.GetDeletionTimestamp() == nil
		},
	}
	return p
}

// Kind implements engine.Pass.
func (p *customDown) Kind() string { return p.kind() }

// Reconcile implements engine.Pass. An object gets our finalizer before it gets to the
// host, and loses it when the host's is gone.
func (p *customDown) Reconcile(ctx context.Context, name tenant.Name) (time.Duration, error) {
	if !p.ready() {
		return 0, nil // all keys come again when it is
	}
	tenantObject, ok := p.tenantObject(name)
	lives := ok && tenantObject.GetDeletionTimestamp() == nil
	held := ok && slices.Contains(tenantObject.GetFinalizers(), finalizer)
	if lives && !held {
		if _, refusals := p.rule.Down(p.config.Tenant, tenantObject); len(refusals) == 0 {
			return 0, p.finalizers(ctx, tenantObject, append(slices.Clone(tenantObject.GetFinalizers()), finalizer))
		}
	}
	again, err := p.mirror.Reconcile(ctx, name)
	if ok && (apierrors.IsForbidden(err) || apierrors.IsInvalid(err)) {
		message := err.Error()
		if status := apierrors.APIStatus(nil); errors.As(err, &status) {
			message = status.Status().Message
		}
		p.held.tell(tenantObject, corev1.EventTypeWarning, reasonHeld, p.rule.Reveal(p.config.Tenant, tenantObject, message))
	}
	if err != nil || lives || !held {
		return again, err
	}
	return again, p.release(ctx, name, tenantObject)
}

func (p *customDown) want(_ context.Context, tenantObject, _ object) (engine.Want[object], error) {
	want, refusals := p.rule.Down(p.config.Tenant, tenantObject)
	if len(refusals) > 0 {
		p.held.tell(tenantObject, corev1.EventTypeWarning, reasonCustomRefused, rules.Refused(refusals))
		return engine.Leave[object](), nil // what is on the host stays as it was allowed
	}
	return engine.Be(want), nil
}

// release lets go of a tenant's object that is being deleted once the host, which is
// asked itself, has none for it.
func (p *customDown) release(ctx context.Context, name tenant.Name, tenantObject object) error {
	if _, exists := p.host.Cached(name); exists {
		return nil // its end brings us back
	}
	hostObject, exists, err := p.host.Live(ctx, name)
	if err != nil {
		return fmt.Errorf("look for the host object of %s: %w", name, err)
	}
	if exists {
		if _, err := p.host.Owner(hostObject); err == nil {
			return engine.ErrUnseen
		}
	}
	left := slices.DeleteFunc(slices.Clone(tenantObject.GetFinalizers()), func(f string) bool { return f == finalizer })
	return p.finalizers(ctx, tenantObject, left)
}

// finalizers changes those of a tenant's object, if it is still the one we know.
func (p *customDown) finalizers(ctx context.Context, tenantObject object, names []string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": tenantObject.GetUID(), "resourceVersion": tenantObject.GetResourceVersion(), "finalizers": names,
	}})
	if err != nil {
		return fmt.Errorf("patch of %s: %w", translate.NameOf(tenantObject), err)
	}
	_, err = p.onTenant.Namespace(tenantObject.GetNamespace()).Patch(ctx, tenantObject.GetName(), types.MergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("change the finalizers of %s: %w", translate.NameOf(tenantObject), err)
	}
	return nil
}

// customUp brings the tenant's objects the status that the rule names.
type customUp struct {
	*custom
	status engine.Pass
}

func (c *custom) up(host engine.Host[object]) engine.Pass {
	return &customUp{c, &engine.Adjust[object, object]{
		Name: c.kindStatus(), Source: host.Cached, Target: c.tenantObject,
		Pair: func(hostObject, tenantObject object) bool {
			owner, err := host.Owner(hostObject)
			return err == nil && owner == tenantObject.GetUID()
		},
		Merge: func(hostObject, tenantObject object) (object, bool) {
			return c.rule.Status(c.config.Tenant, hostObject, tenantObject, func(driverText string) string {
				return c.t.HideHost(driverText, tenantObject.GetUID(), c.caches.hostNodes.GetStore().ListKeys())
			})
		},
		Write: c.writeStatus,
	}}
}

// Kind implements engine.Pass.
func (p *customUp) Kind() string { return p.kindStatus() }

// Reconcile implements engine.Pass.
func (p *customUp) Reconcile(ctx context.Context, name tenant.Name) (time.Duration, error) {
	if !p.ready() {
		return 0, nil
	}
	return p.status.Reconcile(ctx, name)
}

// writeStatus writes the status of an object of the tenant's.
func (c *custom) writeStatus(ctx context.Context, tenantObject object) error {
	objects := c.onTenant.Namespace(tenantObject.GetNamespace())
	write := objects.UpdateStatus
	if !c.hasStatus {
		write = func(ctx context.Context, o object, options metav1.UpdateOptions) (object, error) {
			return objects.Update(ctx, o, options)
		}
	}
	_, err := write(ctx, tenantObject, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
