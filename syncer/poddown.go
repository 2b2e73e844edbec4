package syncer

import (
	"context"
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/translate"
)

// forcedGrace is the grace in seconds of a host pod whose tenant pod is gone: its
// user did not want to wait, but its name is free only when its containers are
// dead.
const forcedGrace = 1

// podDown is everything of a pod that is written on the host, in order: what the
// pod refers to, the policies that select it, the pod, its tokens, what it may know of its node, and the changes
// that go through subresources.
type podDown struct {
	*Syncer
	configMaps, secrets engine.Pass
	claimPass, anchors  engine.Pass
	policies            *policyDown
	pod                 *engine.Mirror[*corev1.Pod, *corev1.Pod]
	after               []engine.Pass
}

func (s *Syncer) newPodDown(configMaps, secrets, claims, anchors engine.Pass, policies *policyDown) *podDown {
	p := &podDown{Syncer: s, configMaps: configMaps, secrets: secrets, claimPass: claims, anchors: anchors, policies: policies}
	grace := int64(forcedGrace)
	p.pod = &engine.Mirror[*corev1.Pod, *corev1.Pod]{
		Name:        kindPod,
		Source:      fromTenant[*corev1.Pod](s.caches.tenant.pods),
		Target:      s.hostPods(),
		Want:        p.want,
		Merge:       translate.MergePod,
		OrphanGrace: &grace,
	}
	p.after = []engine.Pass{s.podTokens(), s.podCertificates(), s.podNode(), s.subresource(s.t.EphemeralContainers, s.updateEphemeral), s.subresource(translate.Resize, s.updateResize)}
	return p
}

// Kind implements engine.Pass.
func (p *podDown) Kind() string { return kindPod }

// Reconcile implements engine.Pass. What comes after the pod is tried whatever
// became of the pod itself.
func (p *podDown) Reconcile(ctx context.Context, name tenant.Name) (time.Duration, error) {
	p.crowd.begin(name)
	again, err := p.pod.Reconcile(ctx, name)
	if p.crowd.end(name, p.pod.Unseen(name)) {
		p.engine.Add(p.called()...) // there may be room still
	}
	if err != nil {
		p.holdFor(name, err)
	}
	if _, onHost := p.hostPods().Cached(name); !onHost && p.lives(name) {
		return again, err // nothing needs what comes after it
	}
	for _, pass := range p.after {
		next, e := pass.Reconcile(ctx, name)
		if err = errors.Join(err, e); next > 0 && (again == 0 || next < again) {
			again = next
		}
	}
	return again, err
}

func (p *podDown) lives(name tenant.Name) bool {
	_, ok := fromTenant[*corev1.Pod](p.caches.tenant.pods)(name)
	return ok
}

// want says what the host pod must be. Before one is made, all that its containers
// need is brought to the host.
func (p *podDown) want(ctx context.Context, tenantPod, hostPod *corev1.Pod) (engine.Want[*corev1.Pod], error) {
	leave := engine.Leave[*corev1.Pod]()
	switch {
	case tenantPod.DeletionTimestamp != nil:
		return engine.Gone[*corev1.Pod](hostGrace(tenantPod)), nil
	case hostPod == nil && (tenantPod.Spec.NodeName != "" || translate.Ended(tenantPod)):
		return leave, nil // it had one: see podUp
	case len(tenantPod.Spec.SchedulingGates) > 0:
		return leave, nil
	}
	if hostPod == nil && p.crowded(tenantPod) {
		return leave, nil // it is called, see crowdPass
	}
	want, refusals := p.t.Pod(tenantPod)
	if len(refusals) > 0 {
		p.hold(tenantPod, reasonRefused, policy.Err(refusals).Error())
		return leave, nil
	}
	if hostPod == nil {
		if err := p.prepare(ctx, tenantPod); err != nil {
			return leave, err
		}
	}
	p.held.forget(translate.NameOf(tenantPod))
	return engine.Be(want), nil
}

// hostGrace is the deletion grace of the host pod: the tenant's, but never zero,
// which would free the name before the containers are dead.
func hostGrace(tenantPod *corev1.Pod) *int64 {
	grace := tenantPod.DeletionGracePeriodSeconds
	if grace != nil && *grace < forcedGrace {
		one := int64(forcedGrace)
		return &one
	}
	return grace
}

// prepare brings what a pod refers to to the host. The kubelet would wait for it,
// but it looks again only after seconds. What says on which node the pod is cannot
// be there before it has one: its tokens and the values of its node.
func (p *podDown) prepare(ctx context.Context, tenantPod *corev1.Pod) error {
	configMaps, secrets := translate.References(tenantPod)
	var errs []error
	for _, n := range configMaps {
		_, err := p.configMaps.Reconcile(ctx, tenant.Name{Namespace: tenantPod.Namespace, Name: n})
		errs = append(errs, err)
	}
	for _, n := range secrets {
		_, err := p.secrets.Reconcile(ctx, tenant.Name{Namespace: tenantPod.Namespace, Name: n})
		errs = append(errs, err)
	}
	for _, a := range translate.AnchorsOf(tenantPod) {
		if _, err := p.anchors.Reconcile(ctx, translate.NameOf(a)); !errors.Is(err, errAnchors) {
			errs = append(errs, err)
		}
	}
	return errors.Join(unlessUnseen(errs), p.mountable(ctx, tenantPod), p.policies.isolate(ctx, tenantPod))
}

// podNode mirrors what a pod may know of its node.
func (s *Syncer) podNode() engine.Pass {
	return &engine.Mirror[*corev1.Pod, *corev1.ConfigMap]{
		Name:   kindPod,
		Source: fromTenant[*corev1.Pod](s.caches.tenant.pods),
		Target: s.hostConfigMaps(translate.SuffixNode),
		Want: be(func(tenantPod *corev1.Pod) *corev1.ConfigMap {
			hostPod, _ := s.hostPods().Cached(translate.NameOf(tenantPod))
			return s.t.NodeValues(tenantPod, hostPod)
		}),
		Merge: translate.MergeConfigMap,
	}
}

// subresource writes a part of a host pod that has a subresource of its own.
func (s *Syncer) subresource(merge func(tenantPod, hostPod *corev1.Pod) (*corev1.Pod, bool), write func(context.Context, *corev1.Pod) error) engine.Pass {
	host := s.hostPods()
	return &engine.Adjust[*corev1.Pod, *corev1.Pod]{
		Name:   kindPod,
		Source: fromTenant[*corev1.Pod](s.caches.tenant.pods),
		Target: host.Cached,
		Pair: func(tenantPod, hostPod *corev1.Pod) bool {
			owner, err := host.Owner(hostPod)
			return err == nil && owner == tenantPod.UID && tenantPod.DeletionTimestamp == nil && hostPod.DeletionTimestamp == nil && !translate.Ended(hostPod)
		},
		Merge: merge,
		Write: write,
	}
}

func (s *Syncer) updateEphemeral(ctx context.Context, hostPod *corev1.Pod) error {
	_, err := s.hostWrite.CoreV1().Pods(hostPod.Namespace).UpdateEphemeralContainers(ctx, hostPod.Name, hostPod, metav1.UpdateOptions{})
	return err
}

func (s *Syncer) updateResize(ctx context.Context, hostPod *corev1.Pod) error {
	_, err := s.hostWrite.CoreV1().Pods(hostPod.Namespace).UpdateResize(ctx, hostPod.Name, hostPod, metav1.UpdateOptions{})
	return err
}

// unlessUnseen joins errors but for those that only say that a cache lags behind what
// is written already.
func unlessUnseen(errs []error) error {
	return errors.Join(slices.DeleteFunc(errs, func(err error) bool { return errors.Is(err, engine.ErrUnseen) })...)
}
