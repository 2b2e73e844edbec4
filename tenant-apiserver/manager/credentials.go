package manager

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/tenant-apiserver/plan"
)

const (
	// keepExpired is how long the record of a credential outlives it; keepRefused
	// that of one which was never issued.
	keepExpired = 7 * 24 * time.Hour
	keepRefused = time.Hour
	// byTenant is the index of credentials by the name of their tenant.
	byTenant = "spec.tenant"
)

// Reasons of a credential's conditions.
const (
	reasonIssued   = "Signed"
	reasonRefused  = "Refused"
	reasonEnforced = "Enforced"
)

// credentials reconciles Credentials: it signs them, and has revoked ones refused.
type credentials struct{ *Manager }

// index lets credentialsOf find the credentials of one tenant.
func (m *Manager) index(ctx context.Context) error {
	err := m.inner.GetFieldIndexer().IndexField(ctx, &v1alpha1.Credential{}, byTenant, func(o client.Object) []string {
		return []string{o.(*v1alpha1.Credential).Spec.Tenant}
	})
	if err != nil {
		return fmt.Errorf("index the credentials: %w", err)
	}
	return nil
}

// buildCredentials joins watch, queue and reconciler of credentials.
func (m *Manager) buildCredentials() error {
	err := ctrl.NewControllerManagedBy(m.inner).
		Named("credential").
		For(&v1alpha1.Credential{}).
		Watches(&v1alpha1.VirtualCluster{}, handler.EnqueueRequestsFromMapFunc(m.leftOf), builder.WithPredicates(gone)).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers, RateLimiter: limiter()}).
		Complete(credentials{m})
	if err != nil {
		return fmt.Errorf("make the credentials' controller: %w", err)
	}
	return nil
}

// gone lets pass only that a tenant is gone.
var gone = predicate.Funcs{
	CreateFunc:  func(event.CreateEvent) bool { return false },
	UpdateFunc:  func(event.UpdateEvent) bool { return false },
	GenericFunc: func(event.GenericEvent) bool { return false },
}

// leftOf returns the credentials of a tenant that is gone.
func (m *Manager) leftOf(ctx context.Context, vc client.Object) []ctrl.Request {
	var list v1alpha1.CredentialList
	if err := m.inner.GetClient().List(ctx, &list, client.MatchingFields{byTenant: vc.GetName()}); err != nil {
		// The garbage collector of the host finds them, too.
		m.config.Logger.Error("list the credentials of a tenant that is gone", "tenant", vc.GetName(), "error", err)
		return nil
	}
	var requests []ctrl.Request
	for i := range list.Items {
		requests = append(requests, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
	}
	return requests
}

// errRefused means that a credential will never be issued.
var errRefused = errors.New("refused")

// Reconcile brings one credential nearer to what it asks for.
func (m credentials) Reconcile(ctx context.Context, r ctrl.Request) (ctrl.Result, error) {
	c := &v1alpha1.Credential{}
	if err := m.api.Get(ctx, r.NamespacedName, c); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	vc, err := m.tenantOf(ctx, c)
	if err != nil {
		return ctrl.Result{}, err
	}
	after, err := m.credential(ctx, vc, c)
	if apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: again}, nil // another write came between: read again
	}
	return ctrl.Result{RequeueAfter: after}, client.IgnoreNotFound(err)
}

// tenantOf returns the tenant of a credential, or nil when it is gone or going. A
// credential is never that of a later tenant of the same name.
func (m credentials) tenantOf(ctx context.Context, c *v1alpha1.Credential) (*v1alpha1.VirtualCluster, error) {
	vc := &v1alpha1.VirtualCluster{}
	err := m.api.Get(ctx, client.ObjectKey{Name: c.Spec.Tenant}, vc)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read the tenant of credential %s: %w", c.Name, err)
	case vc.DeletionTimestamp != nil:
		return nil, nil
	}
	for _, o := range c.OwnerReferences {
		if o.Kind == "VirtualCluster" && o.UID != vc.UID {
			return nil, nil
		}
	}
	return vc, nil
}

// credential does what is to be done, and says when to look again.
func (m credentials) credential(ctx context.Context, vc *v1alpha1.VirtualCluster, c *v1alpha1.Credential) (time.Duration, error) {
	s := &c.Status
	ends := c.CreationTimestamp.Add(keepRefused)
	if s.NotAfter != nil {
		ends = s.NotAfter.Time
	}
	switch left := time.Until(ends); {
	case c.DeletionTimestamp != nil && (vc == nil || s.NotAfter == nil || left <= 0):
		return 0, m.forget(ctx, c)
	case c.DeletionTimestamp != nil:
		return left, m.enforce(ctx, vc, c)
	case vc == nil && s.NotAfter != nil:
		return 0, m.api.Delete(ctx, c)
	case meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionIssued) == nil:
		return m.issue(ctx, vc, c)
	case s.NotAfter == nil || left < -keepExpired:
		if left > 0 {
			return left, nil
		}
		return 0, m.api.Delete(ctx, c)
	case c.Spec.Revoked && left > 0:
		return left + keepExpired, m.enforce(ctx, vc, c)
	default:
		return left + keepExpired, nil
	}
}

// condition says how it is with a credential.
func (credentials) condition(c *v1alpha1.Credential, kind string, is bool, reason, message string) {
	setCondition(&c.Status.Conditions, c.Generation, kind, is, reason, message)
}

// forget lets go of the record.
func (m credentials) forget(ctx context.Context, c *v1alpha1.Credential) error {
	if !controllerutil.RemoveFinalizer(c, v1alpha1.CredentialFinalizer) {
		return nil
	}
	if err := m.api.Update(ctx, c); err != nil {
		return fmt.Errorf("forget credential %s: %w", c.Name, err)
	}
	return nil
}

// issue signs the credential, or says why not. The record goes before: nobody can
// have a certificate that there is no record of.
func (m credentials) issue(ctx context.Context, vc *v1alpha1.VirtualCluster, c *v1alpha1.Credential) (time.Duration, error) {
	if vc != nil && controllerutil.AddFinalizer(c, v1alpha1.CredentialFinalizer) {
		if err := controllerutil.SetOwnerReference(vc, c, m.inner.GetScheme()); err != nil {
			return 0, fmt.Errorf("record credential %s: %w", c.Name, err)
		}
		if err := m.api.Update(ctx, c); err != nil {
			return 0, fmt.Errorf("record credential %s: %w", c.Name, err)
		}
	}
	err := m.sign(ctx, vc, c)
	switch {
	case errors.Is(err, pki.ErrMissing) && vc.Status.Phase != v1alpha1.PhaseReady:
		return again, nil // the tenant is starting and has no keys yet
	case err != nil && !errors.Is(err, errRefused):
		return 0, err
	case err != nil:
		m.condition(c, v1alpha1.ConditionIssued, false, reasonRefused, err.Error())
	default:
		m.condition(c, v1alpha1.ConditionIssued, true, reasonIssued, "The tenant's authority has signed the certificate.")
	}
	if err := m.api.Status().Update(ctx, c); err != nil {
		return 0, fmt.Errorf("write credential %s: %w", c.Name, err)
	}
	return 0, nil // its own write brings it back
}

// sign fills in the status of a credential. It returns an error wrapping errRefused
// when waiting does not help.
func (m credentials) sign(ctx context.Context, vc *v1alpha1.VirtualCluster, c *v1alpha1.Credential) error {
	if vc == nil {
		return fmt.Errorf("%w: there is no tenant %q", errRefused, c.Spec.Tenant)
	}
	if c.Spec.Revoked {
		return fmt.Errorf("%w: it is revoked", errRefused)
	}
	p := &v1alpha1.Plan{}
	if err := m.api.Get(ctx, client.ObjectKey{Name: vc.Spec.Plan}, p); err != nil {
		return fmt.Errorf("read plan %s: %w", vc.Spec.Plan, err)
	}
	lifetime, most := plan.Lifetime(p)
	if c.Spec.Lifetime != nil {
		lifetime = c.Spec.Lifetime.Duration
	}
	if lifetime > most {
		return fmt.Errorf("%w: a lifetime of %s is longer than the plan %s allows, which is %s", errRefused, lifetime, p.Name, most)
	}
	authority, err := pki.Load(m.config.Keys(tenant.ID(vc.UID)))
	if err != nil {
		return err
	}
	leaf, certPEM, err := authority.SignClient(c.Spec.Request, c.Spec.User, c.Spec.Groups, lifetime)
	if err != nil {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	record(c, authority, leaf, certPEM)
	return nil
}

func record(c *v1alpha1.Credential, a *pki.Authority, leaf *x509.Certificate, certPEM []byte) {
	end := metav1.NewTime(leaf.NotAfter)
	s := &c.Status
	s.Certificate, s.Authorities, s.Serial, s.NotAfter = certPEM, a.CAPEM(), pki.Serial(leaf.SerialNumber), &end
	s.Generation = a.Generation()
}

// enforce has the tenant's API refuse a revoked credential, once.
func (m credentials) enforce(ctx context.Context, vc *v1alpha1.VirtualCluster, c *v1alpha1.Credential) error {
	if meta.IsStatusConditionTrue(c.Status.Conditions, v1alpha1.ConditionRevoked) {
		return nil
	}
	if vc.Status.Cell != "" {
		hosting, err := m.cell(ctx, vc.Status.Cell)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, hostTimeout)
		defer cancel()
		if err := hosting.Revoke(ctx, tenant.ID(vc.UID), []string{c.Status.Serial}); err != nil {
			return fmt.Errorf("revoke credential %s: %w", c.Name, err) // tried again until the cell has the tenant
		}
	}
	m.condition(c, v1alpha1.ConditionRevoked, true, reasonEnforced, "The tenant's API refuses the certificate; what was open with it is closed.")
	if err := m.api.Status().Update(ctx, c); err != nil {
		return fmt.Errorf("write credential %s: %w", c.Name, err)
	}
	return nil
}

// credentialsOf returns the credentials of a tenant that are still good by the
// calendar, from the manager's cache.
func (m *Manager) credentialsOf(ctx context.Context, vc *v1alpha1.VirtualCluster) ([]v1alpha1.Credential, error) {
	var list v1alpha1.CredentialList
	if err := m.inner.GetClient().List(ctx, &list, client.MatchingFields{byTenant: vc.Name}); err != nil {
		return nil, fmt.Errorf("list the tenant's credentials: %w", err)
	}
	var out []v1alpha1.Credential
	for _, c := range list.Items {
		if c.Status.NotAfter != nil && time.Now().Before(c.Status.NotAfter.Time) {
			out = append(out, c)
		}
	}
	return out, nil
}
