package manager

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/cell"
	"sublet.dev/tenant-apiserver/plan"
)

const (
	// hostTimeout is how long a reconciliation waits for a control plane to start.
	hostTimeout = 10 * time.Second
	// again is how soon a step that waits for others is looked at again.
	again = 250 * time.Millisecond
)

// Reasons of the conditions, besides those of cell.Status.
const (
	reasonReady       = "Ready"
	reasonAsleep      = "Asleep"
	reasonFenced      = "InPlace"
	reasonInvalid     = "InvalidName"
	reasonFull        = "NoAddressesLeft"
	reasonAddresses   = "AddressesDoNotFit"
	reasonStarting    = "Starting"
	reasonNoCell      = "CellUnavailable"
	reasonRoute       = "RouteFailed"
	reasonStore       = "StoreUnusable"
	reasonDeleting    = "Deleting"
	reasonHostObjects = "HostObjects"
)

// Reconcile brings one tenant nearer to what its VirtualCluster asks for.
func (m *Manager) Reconcile(ctx context.Context, r ctrl.Request) (ctrl.Result, error) {
	vc := &v1alpha1.VirtualCluster{}
	err := m.api.Get(ctx, r.NamespacedName, vc)
	if apierrors.IsNotFound(err) {
		m.placing.Lock()
		defer m.placing.Unlock()
		m.seats.vanished(r.Name)
		return ctrl.Result{}, nil
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("read the tenant: %w", err)
	}
	before := vc.DeepCopy()
	var state outcome
	if vc.DeletionTimestamp != nil {
		state, err = m.remove(ctx, vc)
	} else {
		state, err = m.ensure(ctx, vc)
	}
	if apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: again}, nil // another write came between: read again
	}
	reportErr := m.report(ctx, before, vc, state, err)
	if apierrors.IsConflict(reportErr) {
		return ctrl.Result{RequeueAfter: again}, nil
	}
	if reportErr != nil {
		return ctrl.Result{}, errors.Join(err, reportErr)
	}
	return ctrl.Result{RequeueAfter: state.again}, err
}

// outcome is how far a reconciliation came.
type outcome struct {
	phase   v1alpha1.Phase
	fenced  bool
	reason  string
	message string
	again   time.Duration // 0: not before something changes
	gone    bool          // the VirtualCluster no longer exists
}

// ensure does the steps of a tenant that is to run.
func (m *Manager) ensure(ctx context.Context, vc *v1alpha1.VirtualCluster) (outcome, error) {
	if err := tenant.ValidateName(vc.Name); err != nil {
		// The API's schema says the same; a tenant that came by another way stops here.
		return outcome{phase: v1alpha1.PhaseFailed, reason: reasonInvalid, message: err.Error()}, nil
	}
	before := vc.Spec.Sandbox
	p, o, err := m.plan(ctx, vc)
	if p == nil {
		return o, err
	}
	if controllerutil.AddFinalizer(vc, v1alpha1.Finalizer) || vc.Spec.Sandbox != before {
		if err := m.api.Update(ctx, vc); err != nil {
			return outcome{phase: v1alpha1.PhaseCreating, reason: reasonStarting}, fmt.Errorf("set finalizer and sandbox: %w", err)
		}
	}
	terms := plan.For(p)
	vc.Status.NoInternet, vc.Status.IngressFrom = !terms.Internet, p.Spec.Ingress.Controllers // with the addresses, without which there is no fence
	if err := m.allocate(ctx, vc, p.Spec.OwnCell); errors.Is(err, errFull) {
		return outcome{phase: v1alpha1.PhaseFailed, reason: reasonFull, message: err.Error(), again: time.Minute}, nil
	} else if err != nil {
		return outcome{phase: v1alpha1.PhaseCreating, reason: reasonStarting, message: err.Error()}, err
	}
	if p.Spec.OwnCell {
		if err := m.separate(ctx, vc); err != nil {
			return outcome{phase: v1alpha1.PhaseCreating, reason: reasonStarting, message: err.Error()}, err
		}
	}
	t, err := m.placed(vc)
	if err != nil {
		return outcome{phase: v1alpha1.PhaseFailed, reason: reasonAddresses, message: err.Error() + ": start the host with the service range it had before"}, nil
	}
	t.Terms, vc.Status.NoInternet, vc.Status.IngressFrom = terms, !terms.Internet, p.Spec.Ingress.Controllers
	m.authentication(vc, &t)
	err = m.ownsPrefix(ctx, vc)
	if err == nil {
		t.Etcd, err = m.etcd(ctx, vc)
	}
	if errors.Is(err, errStoreSpec) {
		return outcome{phase: v1alpha1.PhaseFailed, reason: reasonStore, message: err.Error(), again: credentialsAgain / 12}, nil
	} else if err != nil {
		return outcome{phase: v1alpha1.PhaseCreating, reason: reasonStarting, message: err.Error()}, err
	}
	if err := m.authority(ctx, vc, &t); err != nil {
		return outcome{phase: v1alpha1.PhaseCreating, reason: reasonStarting, message: err.Error()}, err
	}
	if err := m.fence(ctx, vc, t, p.Spec); err != nil {
		return outcome{phase: v1alpha1.PhaseCreating, reason: reasonHostObjects, message: err.Error()}, err
	}
	o, err = m.hostAndRoute(ctx, vc, t)
	if err == nil && answers(o.phase) {
		if again := m.applied(vc, p); o.again == 0 {
			o.again = again
		}
	}
	if t.Etcd.Prefix != "" && o.again == 0 {
		o.again = credentialsAgain
	}
	if o.again == 0 {
		o.again = authorityAgain
	}
	return o, err
}

// hostAndRoute starts the tenant's control plane and opens the door to it.
func (m *Manager) hostAndRoute(ctx context.Context, vc *v1alpha1.VirtualCluster, t cell.Tenant) (outcome, error) {
	o := outcome{phase: v1alpha1.PhaseCreating, fenced: true, reason: reasonStarting}
	c, err := m.cell(ctx, vc.Status.Cell)
	if err != nil {
		o.reason, o.message = reasonNoCell, err.Error()
		return o, err
	}
	putCtx, cancel := context.WithTimeout(ctx, hostTimeout)
	defer cancel()
	s, err := c.Put(putCtx, t)
	if err != nil {
		o.reason, o.message, o.again = reasonNoCell, "The cell does not answer and is being restarted.", time.Second
		m.config.Logger.Debug("the cell did not take a tenant", "tenant", t.Name, "error", err)
		return o, nil
	}
	if s.Phase == cell.Failed {
		o.phase, o.reason, o.message = v1alpha1.PhaseFailed, s.Reason, s.Message
		return o, nil
	}
	if err := m.config.Door.Set(m.route(t)); err != nil {
		o.reason, o.message = reasonRoute, err.Error()
		return o, err
	}
	switch s.Phase {
	case cell.Ready:
		o.phase, o.reason, o.message = v1alpha1.PhaseReady, reasonReady, "The tenant's API answers."
	case cell.Asleep:
		o.phase, o.reason, o.message = v1alpha1.PhaseAsleep, reasonAsleep, "Nobody uses the tenant's API: it answers whoever connects, after a moment."
	case cell.Degraded:
		o.reason, o.message = s.Reason, s.Message
	default: // Starting, or Stopped for a moment while the cell ends
		o.again = again
	}
	return o, nil
}

// report writes the outcome to the status when it changed, and an event when the
// phase did.
func (m *Manager) report(ctx context.Context, before, vc *v1alpha1.VirtualCluster, o outcome, failed error) error {
	if o.gone {
		return nil
	}
	if failed != nil && o.message == "" {
		o.message = failed.Error()
	}
	vc.Status.Phase = o.phase
	m.condition(vc, v1alpha1.ConditionReady, answers(o.phase), o.reason, o.message)
	if o.fenced {
		m.condition(vc, v1alpha1.ConditionFenced, true, reasonFenced, "The host namespace, its rights and its limits are in place.")
	}
	if samePhase := before.Status.Phase == vc.Status.Phase; !samePhase {
		kind := "Normal"
		if o.phase == v1alpha1.PhaseFailed {
			kind = "Warning"
		}
		m.events.Eventf(vc, nil, kind, string(o.phase), "Reconcile", "%s", o.message)
	}
	if equality.Semantic.DeepEqual(before.Status, vc.Status) {
		return nil
	}
	err := m.api.Status().Update(ctx, vc)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("write the tenant's status: %w", err)
	}
	return nil
}

// answers says whether the tenant's API does, in that phase.
func answers(p v1alpha1.Phase) bool { return p == v1alpha1.PhaseReady || p == v1alpha1.PhaseAsleep }

func (m *Manager) condition(vc *v1alpha1.VirtualCluster, kind string, is bool, reason, message string) {
	setCondition(&vc.Status.Conditions, vc.Generation, kind, is, reason, message)
}

func setCondition(conditions *[]metav1.Condition, generation int64, kind string, is bool, reason, message string) {
	status := metav1.ConditionFalse
	if is {
		status = metav1.ConditionTrue
	}
	meta.SetStatusCondition(conditions, metav1.Condition{
		Type: kind, Status: status, Reason: reason, Message: message, ObservedGeneration: generation,
	})
}
