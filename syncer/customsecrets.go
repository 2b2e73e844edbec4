package syncer

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/rules"
)

const (
	// reasonSecretInTheWay is that of events on Secrets of the tenant's own.
	reasonSecretInTheWay = "SecretInTheWay"
	// resultSoon is how soon a Secret is looked for again that is not there yet, and
	// resultFor how long after its object was made. Later, a change of the host
	// object, which mostly comes with it, and the patrol have it looked for.
	resultSoon = 5 * time.Second
	resultFor  = 10 * time.Minute
)

// customSecrets brings the tenant the Secrets that controllers of the host make for its
// objects. Such a Secret has a name that we gave, with the object's UID in it; it gets
// the marks of its object, and goes with the host's.
type customSecrets struct {
	*custom
	host engine.Host[object]
}

// Kind implements engine.Pass.
func (p *customSecrets) Kind() string { return p.kindSecrets() }

// Reconcile implements engine.Pass.
func (p *customSecrets) Reconcile(ctx context.Context, name tenant.Name) (time.Duration, error) {
	if !p.ready() {
		return 0, nil
	}
	tenantObject, ok := p.tenantObject(name)
	hostObject, onHost := p.host.Cached(name)
	if !ok || !onHost || tenantObject.GetDeletionTimestamp() != nil || hostObject.GetDeletionTimestamp() != nil {
		return 0, nil
	}
	if owner, err := p.host.Owner(hostObject); err != nil || owner != tenantObject.GetUID() {
		return 0, err
	}
	for _, use := range p.rule.Uses(p.config.Tenant, tenantObject) {
		if !use.Result {
			continue
		}
		hostSecret, err := p.result(ctx, tenantObject, hostObject, use.Name)
		if err != nil {
			return 0, fmt.Errorf("the host's secret for %s: %w", name, err)
		}
		if hostSecret == nil {
			if p.config.Clock.Since(hostObject.GetCreationTimestamp().Time) < resultFor {
				return resultSoon, nil
			}
			continue
		}
		if err := p.bring(ctx, p.rule.Secret(tenantObject, use.Name, hostSecret), tenantObject.GetUID()); err != nil {
			return 0, fmt.Errorf("the tenant's secret for %s: %w", name, err)
		}
	}
	return 0, nil
}

// result returns the host's Secret for an object, marked as the object's; nil: there is
// none, or one that nobody should have.
func (p *customSecrets) result(ctx context.Context, tenantObject, hostObject object, secret string) (*corev1.Secret, error) {
	t := p.config.Tenant
	hostName := string(t.ID.HostName(p.rule.ResultName(tenantObject, secret)))
	hostSecret, ok := engine.FromCache[*corev1.Secret](p.caches.host.secrets.GetStore(), t.HostNamespace+"/"+hostName)
	if !ok {
		var err error
		hostSecret, err = p.hostRead.CoreV1().Secrets(t.HostNamespace).Get(ctx, hostName, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
	}
	if hostSecret.Type == corev1.SecretTypeServiceAccountToken || hostSecret.DeletionTimestamp != nil {
		return nil, nil
	}
	if _, err := tenant.ReadOwner(hostSecret.Name, hostSecret.Labels, hostSecret.Annotations); err == nil {
		return hostSecret, nil
	}
	if of := hostSecret.Labels[tenant.LabelTenant]; of != "" && of != string(t.ID) {
		return nil, fmt.Errorf("%w: it belongs to another tenant", engine.ErrForeign)
	}
	return hostSecret, p.mark(ctx, tenantObject, hostObject, hostSecret, secret)
}

// mark says on the host's Secret whose it is, and that it goes with the host's object.
func (p *customSecrets) mark(ctx context.Context, tenantObject, hostObject object, hostSecret *corev1.Secret, secret string) error {
	labels, annotations := p.rule.ResultMarks(p.config.Tenant, tenantObject, secret)
	owners := slices.Clone(hostSecret.OwnerReferences)
	if !slices.ContainsFunc(owners, func(o metav1.OwnerReference) bool { return o.UID == hostObject.GetUID() }) {
		owners = append(owners, metav1.OwnerReference{APIVersion: hostObject.GetAPIVersion(), Kind: hostObject.GetKind(), Name: hostObject.GetName(), UID: hostObject.GetUID()})
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": hostSecret.UID, "resourceVersion": hostSecret.ResourceVersion, "labels": labels, "annotations": annotations, "ownerReferences": owners,
	}})
	if err != nil {
		return fmt.Errorf("patch of %s: %w", hostSecret.Name, err)
	}
	release, err := p.caches.host.secrets.Hold(ctx) // with the marks it comes into view
	if err != nil {
		return err
	}
	defer release()
	_, err = p.hostMarks.Resource(corev1.SchemeGroupVersion.WithResource("secrets")).Namespace(hostSecret.Namespace).
		Patch(ctx, hostSecret.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// bring makes the tenant's Secret what is wanted, unless it is one of the tenant's own.
func (p *customSecrets) bring(ctx context.Context, want *corev1.Secret, owner types.UID) error {
	api := p.tenantAPI.CoreV1().Secrets(want.Namespace)
	have, err := api.Get(ctx, want.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = api.Create(ctx, want, metav1.CreateOptions{})
		return err
	}
	if err != nil {
		return err
	}
	switch {
	case have.Annotations[rules.AnnotationView] != string(owner):
		p.held.tell(have, corev1.EventTypeWarning, reasonSecretInTheWay, "a secret of this name was made for you, and this one, which is yours, is in its place")
		return nil
	case have.DeletionTimestamp != nil:
		return engine.ErrUnseen
	case have.Type != want.Type:
		err := api.Delete(ctx, have.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &have.UID}})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		return engine.ErrUnseen
	case equality.Semantic.DeepEqual(have.Data, want.Data):
		return nil
	}
	have.Data = maps.Clone(want.Data)
	_, err = api.Update(ctx, have, metav1.UpdateOptions{})
	return err
}

// ofResult gives the keys of the object that a host Secret was made for.
func (s *Syncer) ofResult(n tenant.Name) ([]engine.Key, bool) {
	definition, object, ok := rules.ReadResult(n)
	if !ok {
		return nil, false
	}
	return keys(object, definition+"/secrets"), true
}

// ofTenantSecret: a Secret, and the object for which it was brought.
func (s *Syncer) ofTenantSecret(tenantSecret *corev1.Secret) []engine.Key {
	all := keys(tenant.Name{Namespace: tenantSecret.Namespace, Name: tenantSecret.Name}, kindSecret)
	s.customs.each(func(c *custom) {
		for _, o := range tenantSecret.OwnerReferences {
			if c.rule.ToHost() && o.Kind == c.rule.Kind().Kind {
				all = append(all, keys(tenant.Name{Namespace: tenantSecret.Namespace, Name: o.Name}, c.kindSecrets())...)
			}
		}
	})
	return all
}
