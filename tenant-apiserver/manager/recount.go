package manager

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/baseline"
	"sublet.dev/isolation/tenant"
)

// The host's quota controller asks every 30 seconds which kinds there are. It computes a
// quota when its limits change, when something that it counts is deleted, and every five
// minutes, but not when a kind has come: a quota that names one before the controller
// knows it has no count of that, and until it has, the host refuses all objects of the
// kind ("status unknown for quota"). So the limits of such a quota are changed, by one
// that limits nothing, until it has the count.

const (
	// recountAgain is how soon such a quota is looked at again, and recountTries how often
	// at most: by then the controller has computed it by itself.
	recountAgain = 10 * time.Second
	recountTries = 33

	recountOwner = fieldOwner + "-recount"
)

// recounts looks after the quotas whose kinds are not counted yet.
type recounts struct {
	*Manager
	asked chan event.TypedGenericEvent[string] // tenants whose quotas were written

	mu    sync.Mutex
	waits map[string]uncounted // guarded by mu: by tenant
}

// uncounted is what of a tenant's quotas waits to be counted.
type uncounted struct {
	kinds string
	tries int
}

func newRecounts(m *Manager) *recounts {
	return &recounts{Manager: m, asked: make(chan event.TypedGenericEvent[string], 64), waits: map[string]uncounted{}}
}

func (r *recounts) build() error {
	definition := &metav1.PartialObjectMetadata{}
	definition.SetGroupVersionKind(definitionKind)
	err := ctrl.NewControllerManagedBy(r.inner).
		Named("recount").
		WatchesMetadata(definition, handler.EnqueueRequestsFromMapFunc(r.ofDefinition)).
		WatchesRawSource(source.TypedChannel(r.asked, handler.TypedFuncs[string, ctrl.Request]{GenericFunc: enqueueName})).
		WithOptions(controller.Options{MaxConcurrentReconciles: 1, RateLimiter: limiter()}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("make the controller of counts: %w", err)
	}
	return nil
}

var definitionKind = apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition")

// counted lists the definitions whose objects a plan's quota counts.
func counted(p v1alpha1.PlanSpec) []string {
	var names []string
	for _, rule := range baseline.CustomResources(p) {
		if rule.Direction == v1alpha1.ToHost {
			names = append(names, rule.Resource+"."+rule.Group)
		}
	}
	for name := range p.HostResources {
		if kind, ok := strings.CutPrefix(string(name), "count/"); ok {
			names = append(names, kind)
		}
	}
	return names
}

// look has the quotas of a tenant looked at that have just been written.
func (r *recounts) look(ctx context.Context, name string, p v1alpha1.PlanSpec) {
	r.mu.Lock()
	_, waits := r.waits[name]
	r.mu.Unlock()
	if !waits && len(counted(p)) == 0 {
		return
	}
	select {
	case r.asked <- event.TypedGenericEvent[string]{Object: name}:
	case <-ctx.Done():
	}
}

// ofDefinition returns the tenants whose quotas count objects of a definition that has
// come or changed.
func (r *recounts) ofDefinition(ctx context.Context, definition client.Object) []ctrl.Request {
	var plans v1alpha1.PlanList
	err := r.inner.GetCache().List(ctx, &plans, client.UnsafeDisableDeepCopy)
	if err != nil {
		return nil // the cache is in this process: it is ending
	}
	offers := map[string]bool{}
	for i := range plans.Items {
		offers[plans.Items[i].Name] = slices.Contains(counted(plans.Items[i].Spec), definition.GetName())
	}
	tenants, err := r.tenants(ctx)
	if err != nil {
		return nil
	}
	var requests []ctrl.Request
	for i := range tenants {
		if offers[tenants[i].Spec.Plan] {
			r.forget(tenants[i].Name) // what was given up may be counted now
			requests = append(requests, ctrl.Request{NamespacedName: types.NamespacedName{Name: tenants[i].Name}})
		}
	}
	return requests
}

// Reconcile looks at the quotas of one tenant, and has those computed that are not whole.
func (r *recounts) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	quotas, err := r.quotas(ctx, request.Name)
	if err != nil {
		return ctrl.Result{}, err
	}
	missing := make([][]string, len(quotas))
	for i := range quotas {
		if missing[i], err = r.missing(ctx, &quotas[i]); err != nil {
			return ctrl.Result{}, err
		}
	}
	kinds := slices.Concat(missing...)
	if r.givesUp(request.Name, kinds) {
		r.config.Logger.Warn("the host's quota controller does not count what a plan limits", "tenant", request.Name, "kinds", kinds)
		missing, kinds = make([][]string, len(quotas)), nil // nothing is left behind
	}
	for i := range quotas {
		if err := Recount(ctx, r.api, &quotas[i], len(missing[i]) > 0); err != nil {
			return ctrl.Result{}, err
		}
	}
	if len(kinds) == 0 {
		return ctrl.Result{}, nil
	}
	return ctrl.Result{RequeueAfter: recountAgain}, nil
}

// quotas reads those of a tenant. One that is gone, or going, has none.
func (r *recounts) quotas(ctx context.Context, name string) ([]corev1.ResourceQuota, error) {
	vc := &v1alpha1.VirtualCluster{}
	err := r.api.Get(ctx, client.ObjectKey{Name: name}, vc)
	if apierrors.IsNotFound(err) || err == nil && (vc.DeletionTimestamp != nil || vc.Status.Namespace == "") {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the tenant: %w", err)
	}
	var list corev1.ResourceQuotaList
	if err := r.api.List(ctx, &list, client.InNamespace(vc.Status.Namespace), client.MatchingLabels{tenant.LabelTenant: string(vc.UID)}); err != nil {
		return nil, fmt.Errorf("read the tenant's quotas: %w", err)
	}
	return list.Items, nil
}

// givesUp notes which kinds of a tenant are not counted, and says whether they have not
// been for too long.
func (r *recounts) givesUp(name string, kinds []string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(kinds) == 0 {
		delete(r.waits, name)
		return false
	}
	slices.Sort(kinds)
	now := r.waits[name]
	if all := strings.Join(kinds, ","); now.kinds != all {
		now = uncounted{kinds: all}
	}
	now.tries++
	r.waits[name] = now
	return now.tries > recountTries
}

func (r *recounts) forget(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.waits, name)
}

// missing lists the definitions of the host whose objects a quota limits and has no count
// of.
func (r *recounts) missing(ctx context.Context, q *corev1.ResourceQuota) ([]string, error) {
	var kinds []string
	for name := range q.Spec.Hard {
		kind, ok := strings.CutPrefix(string(name), "count/")
		if _, has := q.Status.Used[name]; !ok || has {
			continue
		}
		definition := &metav1.PartialObjectMetadata{}
		definition.SetGroupVersionKind(definitionKind)
		err := r.inner.GetCache().Get(ctx, client.ObjectKey{Name: kind}, definition)
		if apierrors.IsNotFound(err) {
			continue // it is looked at when there is one
		}
		if err != nil {
			return nil, fmt.Errorf("read the host's definition %s: %w", kind, err)
		}
		kinds = append(kinds, kind)
	}
	return kinds, nil
}

// Recount has the host's quota controller compute a quota anew if missing says that it
// lacks a count, and takes away what was written for that once it does not. A quota whose
// limits the controller has still to look at is left alone.
func Recount(ctx context.Context, api client.Client, q *corev1.ResourceQuota, missing bool) error {
	tries, changed := q.Spec.Hard[baseline.ResourceRecounts]
	var value any // nil: without the limit
	switch {
	case missing && !equality.Semantic.DeepEqual(q.Spec.Hard, q.Status.Hard), !missing && !changed:
		return nil
	case missing:
		value = fmt.Sprint(tries.Value() + 1)
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": q.UID},
		"spec":     map[string]any{"hard": map[corev1.ResourceName]any{baseline.ResourceRecounts: value}},
	})
	if err != nil {
		return fmt.Errorf("patch of the quota %s: %w", client.ObjectKeyFromObject(q), err)
	}
	err = api.Patch(ctx, q.DeepCopy(), client.RawPatch(types.MergePatchType, patch), client.FieldOwner(recountOwner))
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("have the quota %s counted: %w", client.ObjectKeyFromObject(q), err)
	}
	return nil
}
