package syncer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/translate"
)

// policyDown mirrors the tenant's NetworkPolicies. One that can't be translated whole
// is on the host as one that allows nothing. Whoever wrote a policy that does not do
// what it says is told by an event.
type policyDown struct {
	*Syncer
	mirror engine.Pass

	mu   sync.Mutex
	last map[string]listed // guarded by mu: by namespace
}

func (s *Syncer) hostPolicies() engine.Host[*networkingv1.NetworkPolicy] {
	ns := s.config.Tenant.HostNamespace
	return onHost[*networkingv1.NetworkPolicy](s, s.caches.host.networkPolicies,
		s.hostRead.NetworkingV1().NetworkPolicies(ns), s.hostWrite.NetworkingV1().NetworkPolicies(ns), "")
}

func (s *Syncer) networkPolicies() *policyDown {
	p := &policyDown{Syncer: s, last: map[string]listed{}}
	p.mirror = &engine.Mirror[*networkingv1.NetworkPolicy, *networkingv1.NetworkPolicy]{
		Name:   kindNetworkPolicy,
		Source: fromTenant[*networkingv1.NetworkPolicy](s.caches.tenant.networkPolicies),
		Target: s.hostPolicies(),
		Want:   p.want,
		Merge:  translate.MergeNetworkPolicy,
	}
	return p
}

// Kind implements engine.Pass.
func (p *policyDown) Kind() string { return kindNetworkPolicy }

// Reconcile implements engine.Pass.
func (p *policyDown) Reconcile(ctx context.Context, name tenant.Name) (time.Duration, error) {
	again, err := p.mirror.Reconcile(ctx, name)
	if apierrors.IsForbidden(err) || apierrors.IsInvalid(err) {
		if tenantPolicy, ok := fromTenant[*networkingv1.NetworkPolicy](p.caches.tenant.networkPolicies)(name); ok {
			p.held.tell(tenantPolicy, corev1.EventTypeWarning, reasonHeld, "it is not enforced: the host takes no more policies of yours, or not this one")
		}
	}
	return again, err
}

func (p *policyDown) want(_ context.Context, tenantPolicy, hostPolicy *networkingv1.NetworkPolicy) (engine.Want[*networkingv1.NetworkPolicy], error) {
	want, refusals := p.t.NetworkPolicy(tenantPolicy)
	if hostPolicy == nil {
		hostPolicy = &networkingv1.NetworkPolicy{}
	}
	if _, found := translate.MergeNetworkPolicy(hostPolicy, want); found != engine.Same && len(refusals) > 0 {
		p.held.tell(tenantPolicy, corev1.EventTypeWarning, reasonRefused, "it allows nothing to the pods that it selects: "+reasons(refusals))
	}
	return engine.Be(want), nil
}

// isolate brings the policies that select a pod to the host: its first packet is
// under them. It asks the tenant's API, for its cache of policies may be behind that
// of pods.
func (p *policyDown) isolate(ctx context.Context, tenantPod *corev1.Pod) error {
	policies, err := p.asOf(ctx, tenantPod)
	if err != nil {
		return err
	}
	var errs []error
	var behind error
	for i := range policies {
		tenantPolicy := &policies[i]
		name := translate.NameOf(tenantPolicy)
		if !translate.IsolatesPod(tenantPolicy, tenantPod) {
			continue
		}
		seen, ok := fromTenant[*networkingv1.NetworkPolicy](p.caches.tenant.networkPolicies)(name)
		if !ok || seen.UID != tenantPolicy.UID || seen.Generation < tenantPolicy.Generation {
			behind = fmt.Errorf("policy %s of pod %s: %w", name, translate.NameOf(tenantPod), engine.ErrUnseen)
			continue
		}
		_, err := p.Reconcile(ctx, name)
		errs = append(errs, err)
	}
	if behind != nil {
		p.forget(tenantPod.Namespace) // the policy may be gone by now
	}
	return errors.Join(unlessUnseen(errs), behind)
}

// listed is what a namespace's policies were at a resource version.
type listed struct {
	version string
	items   []networkingv1.NetworkPolicy
}

// asOf returns the policies of a pod's namespace as they were when it was last written,
// or later: the last answer, if the pod is no younger.
func (p *policyDown) asOf(ctx context.Context, tenantPod *corev1.Pod) ([]networkingv1.NetworkPolicy, error) {
	p.mu.Lock()
	last := p.last[tenantPod.Namespace]
	p.mu.Unlock()
	if c, err := resourceversion.CompareResourceVersion(last.version, tenantPod.ResourceVersion); err == nil && c >= 0 {
		return last.items, nil
	}
	list, err := p.tenantAPI.NetworkingV1().NetworkPolicies(tenantPod.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list the policies that may select pod %s: %w", translate.NameOf(tenantPod), err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.last) >= maxListed {
		clear(p.last)
	}
	p.last[tenantPod.Namespace] = listed{list.ResourceVersion, list.Items}
	return list.Items, nil
}

func (p *policyDown) forget(namespace string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.last, namespace)
}

// maxListed is of how many namespaces the last answer is kept.
const maxListed = 16

func reasons(refusals []policy.Refusal) string {
	lines := make([]string, len(refusals))
	for i, r := range refusals {
		lines[i] = r.String()
	}
	return strings.Join(lines, "; ")
}
