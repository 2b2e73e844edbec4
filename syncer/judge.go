package syncer

import (
	"errors"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"sublet.dev/syncer/rules"
	"sublet.dev/syncer/translate"
)

// Judge says of an object that the tenant writes, at that moment, what would be said
// by events later: with an error that it is refused (kinds that the provider offers by a
// rule of the plan), with warnings that it is stored and will not be carried out
// (Services, claims, Gateways, HTTPRoutes: kinds that mean something in the tenant alone,
// too). It looks at
// nothing but the object and the plan, and may be called at any time.
func (s *Syncer) Judge(tenantObject runtime.Object) (warnings []string, err error) {
	switch o := tenantObject.(type) {
	case *unstructured.Unstructured:
		return s.customs.judge(o)
	case *corev1.PersistentVolumeClaim:
		if _, refusals := s.t.Claim(o, s.claimOffer()); len(refusals) > 0 {
			return []string{translate.Refused(refusals)}, nil
		}
	case *corev1.Service:
		if o.Spec.Type != corev1.ServiceTypeLoadBalancer || !s.balancers().Offered {
			return nil, nil // the API itself warns where there is none at all
		}
		if _, refusals := s.balancers().Balance(o, o, nil); len(refusals) > 0 {
			return []string{"no load balancer is offered: " + reasons(refusals)}, nil
		}
	}
	return nil, nil
}

// judge refuses what a rule that works does not bring to the host, and warns of what the
// provider's gateways do not serve. A kind that the tenant has defined itself is its own.
func (c *customs) judge(tenantObject object) (warnings []string, err error) {
	c.mu.Lock()
	var works *custom
	for _, w := range c.running {
		if w.rule.ToHost() && w.rule.Kind().GroupKind() == tenantObject.GroupVersionKind().GroupKind() {
			works = w
		}
	}
	c.mu.Unlock()
	if works == nil {
		return nil, nil
	}
	if works.routes() {
		to, _ := works.route(c, tenantObject)
		if never := translate.Never(to.refusals); to.serves && len(never) > 0 {
			return []string{rules.Refused(never)}, nil
		}
		return nil, nil
	}
	if _, refusals := works.rule.Down(c.config.Tenant, tenantObject); len(refusals) > 0 {
		return nil, errors.New(rules.Refused(refusals))
	}
	return nil, nil
}
