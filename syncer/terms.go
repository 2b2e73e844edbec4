package syncer

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/translate"
)

// plan is what the tenant's plan gives its pods.
func (s *Syncer) plan() translate.PodTerms {
	if t := s.podTerms.Load(); t != nil {
		return *t
	}
	return translate.PodTerms{}
}

// SetPodTerms says what the tenant's plan gives its pods from now on. It may be called
// at any time. Pods that have a node keep what they have, their PriorityClass among it.
func (s *Syncer) SetPodTerms(terms translate.PodTerms) {
	before := s.plan()
	s.podTerms.Store(&terms)
	for _, name := range append(slices.Clone(before.RuntimeClasses), terms.RuntimeClasses...) {
		s.engine.Add(keys(tenant.Name{Name: name}, kindRuntimeClass)...)
	}
	for _, name := range append(slices.Clone(before.PriorityClasses), terms.PriorityClasses...) {
		s.engine.Add(keys(tenant.Name{Name: name}, kindPriorityClass)...)
	}
	for _, o := range s.caches.hostNodes.GetStore().List() {
		if hostNode, ok := o.(*corev1.Node); ok {
			s.engine.Add(s.ofHostNode(hostNode)...)
		}
	}
	for _, o := range s.caches.tenant.pods.GetStore().List() {
		if tenantPod, ok := o.(*corev1.Pod); ok && tenantPod.Spec.NodeName == "" {
			s.engine.Add(keys(translate.NameOf(tenantPod), kindPod)...)
		}
	}
}
