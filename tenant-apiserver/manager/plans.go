package manager

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/tenant-apiserver/plan"
)

// Reasons that have to do with plans.
const (
	reasonNoPlan  = "PlanNotFound"
	reasonSandbox = "SandboxNotInPlan"
	reasonApplied = "Applied"
	// reasonNoGateways: the host has not the Gateway API that the plan offers.
	reasonNoGateways = "GatewayAPIMissing"
)

// EnsurePlans makes the built-in plans that are missing. What the provider changed
// in one stays.
func EnsurePlans(ctx context.Context, api client.Client) error {
	for _, p := range plan.BuiltIn() {
		if err := api.Create(ctx, p); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("make plan %s: %w", p.Name, err)
		}
	}
	return nil
}

// plan reads the tenant's plan and gives a tenant without a sandbox the plan's. A
// nil plan means that the outcome tells why the tenant can't run.
func (m *Manager) plan(ctx context.Context, vc *v1alpha1.VirtualCluster) (*v1alpha1.Plan, outcome, error) {
	o := outcome{phase: v1alpha1.PhaseFailed, reason: reasonNoPlan}
	p := &v1alpha1.Plan{}
	err := m.api.Get(ctx, client.ObjectKey{Name: vc.Spec.Plan}, p)
	if apierrors.IsNotFound(err) {
		o.message = fmt.Sprintf("there is no plan %q: make it, or give the tenant another with `sublet plan set %s PLAN`", vc.Spec.Plan, vc.Name)
		return nil, o, nil
	}
	if err != nil {
		return nil, outcome{phase: v1alpha1.PhaseCreating, reason: reasonStarting}, fmt.Errorf("read plan %s: %w", vc.Spec.Plan, err)
	}
	sandbox, ok := plan.Sandbox(p, vc.Spec.Sandbox)
	if !ok && vc.Status.Namespace == "" {
		o.reason, o.message = reasonSandbox, notInPlan(vc, p)
		return nil, o, nil
	}
	vc.Spec.Sandbox = sandbox
	return p, o, nil
}

func notInPlan(vc *v1alpha1.VirtualCluster, p *v1alpha1.Plan) string {
	return fmt.Sprintf("the plan %s has the sandboxes %q, not the tenant's %s: give the tenant another plan with `sublet plan set %s PLAN`", p.Name, p.Spec.Sandboxes, vc.Spec.Sandbox, vc.Name)
}

// missingAgain is how soon a host is asked again for what a plan offers and it has not.
const missingAgain = time.Minute

// applied says in the status that the tenant has what its plan says, or in what
// not; again is when to look again, 0: not before something changes.
func (m *Manager) applied(vc *v1alpha1.VirtualCluster, p *v1alpha1.Plan) (again time.Duration) {
	if _, ok := plan.Sandbox(p, vc.Spec.Sandbox); !ok {
		m.condition(vc, v1alpha1.ConditionPlanApplied, false, reasonSandbox, notInPlan(vc, p))
		return 0
	}
	if missing := m.noGateways(p); missing != "" {
		m.condition(vc, v1alpha1.ConditionPlanApplied, false, reasonNoGateways, fmt.Sprintf("the plan %s offers gateway classes, and the host does not serve the kind %s: install the Gateway API there, or take ingress.gatewayClasses out of the plan", p.Name, missing))
		return missingAgain
	}
	m.condition(vc, v1alpha1.ConditionPlanApplied, true, reasonApplied, fmt.Sprintf("The tenant has what the plan %s says (generation %d).", p.Name, p.Generation))
	return 0
}

// ofPlan returns the tenants of a plan that changed.
func (m *Manager) ofPlan(ctx context.Context, p client.Object) []ctrl.Request {
	tenants, err := m.tenants(ctx)
	if err != nil {
		// The cache is in this process: it is ending.
		m.config.Logger.Error("list the tenants of a plan", "plan", p.GetName(), "error", err)
		return nil
	}
	var requests []ctrl.Request
	for i := range tenants {
		if vc := &tenants[i]; vc.Spec.Plan == p.GetName() {
			requests = append(requests, ctrl.Request{NamespacedName: types.NamespacedName{Name: vc.Name}})
		}
	}
	return requests
}
