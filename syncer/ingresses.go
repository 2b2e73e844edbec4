package syncer

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/translate"
)

// An Ingress asks for its hostnames first, by a ConfigMap on the host that the manager
// answers (Hostnames); then it is mirrored with the rules whose hostnames the tenant has
// (Ingress).
const (
	kindIngress       = "Ingress"
	kindIngressStatus = "IngressStatus"
	kindIngressClass  = "IngressClass"
	kindHostnames     = "Hostnames"
)

// reasonIngressRefused is the reason of Ingresses of which something is not served.
const reasonIngressRefused = "IngressRefused"

// SetIngress says how the tenant's plan has Ingresses served from now on. It may be
// called at any time.
func (s *Syncer) SetIngress(plan translate.Ingresses) {
	before := s.served()
	s.ingress.Store(&plan)
	s.replanned.note(s.config.Clock.Now())
	for _, name := range append(slices.Clone(before.Classes), plan.Classes...) {
		s.engine.Add(keys(tenant.Name{Name: name}, kindIngressClass)...)
	}
	for _, o := range s.caches.tenant.ingresses.GetStore().List() {
		if tenantIngress, ok := o.(*networkingv1.Ingress); ok {
			s.engine.Add(ofTenantIngress(tenantIngress)...)
		}
	}
	if !slices.Equal(before.GatewayClasses, plan.GatewayClasses) {
		s.engine.Add(s.customs.rerouted()...)
		s.engine.Add(s.customs.certificates()...)
	}
}

func (s *Syncer) served() translate.Ingresses {
	if i := s.ingress.Load(); i != nil {
		return *i
	}
	return translate.Ingresses{}
}

func (s *Syncer) tenantIngress(name tenant.Name) (*networkingv1.Ingress, bool) {
	return fromTenant[*networkingv1.Ingress](s.caches.tenant.ingresses)(name)
}

func (s *Syncer) hostIngresses() engine.Host[*networkingv1.Ingress] {
	ns := s.config.Tenant.HostNamespace
	return onHost[*networkingv1.Ingress](s, s.caches.host.ingresses, s.hostRead.NetworkingV1().Ingresses(ns), s.hostWrite.NetworkingV1().Ingresses(ns), "")
}

// hostnames keeps what asks for the hostnames of an Ingress. The manager gives none of
// them to another tenant as long as the host Ingress serves it.
func (s *Syncer) hostnames() engine.Pass {
	return &engine.Mirror[*networkingv1.Ingress, *corev1.ConfigMap]{
		Name:   kindHostnames,
		Source: s.tenantIngress,
		Target: s.hostConfigMaps(translate.SuffixHostnames),
		Want: func(_ context.Context, tenantIngress *networkingv1.Ingress, _ *corev1.ConfigMap) (engine.Want[*corev1.ConfigMap], error) {
			asks := s.t.Hostnames(tenantIngress)
			if !s.served().Serves(tenantIngress) || asks.Data[tenant.HostnamesKey] == "" {
				return engine.Gone[*corev1.ConfigMap](nil), nil
			}
			return engine.Be(asks), nil
		},
		Merge: translate.MergeHostnames,
	}
}

// ingressDown mirrors the tenant's Ingresses of classes of the plan. What of them is not
// served, the tenant is told.
type ingressDown struct {
	*Syncer
	mirror engine.Pass
	told   sync.Map // by tenant.Name: what was told of an Ingress last
}

func (s *Syncer) ingresses() engine.Pass {
	p := &ingressDown{Syncer: s}
	p.mirror = &engine.Mirror[*networkingv1.Ingress, *networkingv1.Ingress]{
		Name: kindIngress, Source: s.tenantIngress, Target: s.hostIngresses(), Want: p.want, Merge: translate.MergeIngress,
	}
	return p
}

// Kind implements engine.Pass.
func (p *ingressDown) Kind() string { return kindIngress }

// Reconcile implements engine.Pass.
func (p *ingressDown) Reconcile(ctx context.Context, name tenant.Name) (time.Duration, error) {
	again, err := p.mirror.Reconcile(ctx, name)
	tenantIngress, ok := p.tenantIngress(name)
	if !ok {
		p.told.Delete(name)
	}
	if ok && (apierrors.IsForbidden(err) || apierrors.IsInvalid(err)) && !p.replanned.recently(p.config.Clock.Now()) {
		p.held.tell(tenantIngress, corev1.EventTypeWarning, reasonHeld, "it is not served: the host takes no more Ingresses of yours, or not this one")
	}
	return again, err
}

func (p *ingressDown) want(_ context.Context, tenantIngress, hostIngress *networkingv1.Ingress) (engine.Want[*networkingv1.Ingress], error) {
	granted, taken, answered := p.answer(tenantIngress)
	want, refusals := p.t.Ingress(tenantIngress, p.served(), granted, taken)
	if answered && len(refusals) > 0 && p.news(tenantIngress, refusals) {
		p.held.tell(tenantIngress, corev1.EventTypeWarning, reasonIngressRefused, "not served: "+reasons(refusals))
	}
	switch {
	case want != nil:
		return engine.Be(want), nil
	case !answered && hostIngress != nil:
		return engine.Leave[*networkingv1.Ingress](), nil // until the manager has said what it has
	default:
		return engine.Gone[*networkingv1.Ingress](nil), nil
	}
}

// news says whether the tenant has not been told these refusals of this Ingress last.
func (p *ingressDown) news(tenantIngress *networkingv1.Ingress, refusals []policy.Refusal) bool {
	told := string(tenantIngress.UID) + reasons(refusals)
	before, _ := p.told.Swap(translate.NameOf(tenantIngress), told)
	return before != told
}

// answer returns what the manager said of an Ingress's hostnames; answered is false as
// long as it has not spoken about all of them.
func (s *Syncer) answer(tenantIngress *networkingv1.Ingress) (granted, taken []string, answered bool) {
	asked := s.t.Hostnames(tenantIngress).Data[tenant.HostnamesKey]
	granted, taken, answered = s.answered(tenantIngress, translate.SuffixHostnames, asked)
	return granted, taken, answered || !s.served().Serves(tenantIngress)
}

// answered returns what the manager said to an object that asks for hostnames, one a line.
func (s *Syncer) answered(tenantObject metav1.Object, suffix, asked string) (granted, taken []string, answered bool) {
	if asked == "" {
		return nil, nil, true
	}
	host := s.hostConfigMaps(suffix)
	asks, ok := host.Cached(translate.NameOf(tenantObject))
	if !ok {
		return nil, nil, false
	}
	if owner, err := host.Owner(asks); err != nil || owner != tenantObject.GetUID() {
		return nil, nil, false
	}
	text, answered := asks.Annotations[tenant.AnnotationGranted]
	granted = strings.Split(text, ",")
	taken = strings.Split(asks.Annotations[tenant.AnnotationTaken], ",")
	return granted, taken, answered && asks.Data[tenant.HostnamesKey] == asked && asks.Annotations[tenant.AnnotationAnswered] == asked
}

// ingressStatuses tells the tenant where its Ingresses are served: nowhere, if one of
// the plan's classes is not on the host.
func (s *Syncer) ingressStatuses() engine.Pass {
	host, nowhere := s.hostIngresses(), &networkingv1.Ingress{}
	return &engine.Adjust[*networkingv1.Ingress, *networkingv1.Ingress]{
		Name: kindIngressStatus,
		Source: func(n tenant.Name) (*networkingv1.Ingress, bool) {
			if hostIngress, ok := host.Cached(n); ok {
				return hostIngress, true
			}
			tenantIngress, ok := s.tenantIngress(n)
			return nowhere, ok && s.served().Serves(tenantIngress)
		},
		Target: s.tenantIngress,
		Pair: func(hostIngress, tenantIngress *networkingv1.Ingress) bool {
			owner, err := host.Owner(hostIngress)
			return hostIngress == nowhere || err == nil && owner == tenantIngress.UID
		},
		Merge: translate.IngressStatus,
		Write: func(ctx context.Context, tenantIngress *networkingv1.Ingress) error {
			_, err := s.tenantAPI.NetworkingV1().Ingresses(tenantIngress.Namespace).UpdateStatus(ctx, tenantIngress, metav1.UpdateOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return err
		},
	}
}

// certifies says whether an Ingress of the host's refers to a Secret.
func (s *Syncer) certifies(tenantSecret *corev1.Secret) bool {
	key := tenantSecret.Namespace + "/" + tenantSecret.Name
	return slices.ContainsFunc(indexed[*networkingv1.Ingress](s.caches.tenant.ingresses, bySecret, key), s.served().Serves)
}

// ofTenantIngress: an Ingress, and the Secrets that are on the host because of it.
func ofTenantIngress(tenantIngress *networkingv1.Ingress) []engine.Key {
	all := keys(translate.NameOf(tenantIngress), kindHostnames, kindIngress, kindIngressStatus)
	for _, n := range translate.IngressSecrets(tenantIngress) {
		all = append(all, keys(tenant.Name{Namespace: tenantIngress.Namespace, Name: n}, kindSecret)...)
	}
	return all
}

// ingressClasses keeps the tenant's views of the ingress classes that its plan offers.
// Others that the tenant makes are its own.
func (s *Syncer) ingressClasses() engine.Pass {
	return &engine.Mirror[*networkingv1.IngressClass, *networkingv1.IngressClass]{
		Name: kindIngressClass,
		Source: func(n tenant.Name) (*networkingv1.IngressClass, bool) {
			if !slices.Contains(s.served().Classes, n.Name) {
				return nil, false
			}
			return engine.FromCache[*networkingv1.IngressClass](s.config.Host.ingress.GetStore(), n.Name)
		},
		Target: engine.Views[*networkingv1.IngressClass]{Cache: s.caches.ingressClasses.GetStore(), API: s.tenantAPI.NetworkingV1().IngressClasses(), Of: s.viewedIngressClass},
		Want: be(func(hostClass *networkingv1.IngressClass) *networkingv1.IngressClass {
			return s.t.IngressClass(hostClass, isFirst(s.served().Classes, hostClass.Name))
		}),
		Merge: translate.MergeIngressClass,
	}
}

// ofIngressClass: the view of a class, or a class that stands in its place.
func (s *Syncer) ofIngressClass(class *networkingv1.IngressClass) []engine.Key {
	if !slices.Contains(s.served().Classes, class.Name) && class.Spec.Controller != translate.IngressController {
		return nil
	}
	return keys(tenant.Name{Name: class.Name}, kindIngressClass)
}

// viewedIngressClass says which host class a tenant's is a view of. A class of an offered
// name is one, whatever the tenant made of it; any other is a view by its controller,
// which nobody can change.
func (s *Syncer) viewedIngressClass(view *networkingv1.IngressClass) (types.UID, error) {
	hostClass, ok := engine.FromCache[*networkingv1.IngressClass](s.config.Host.ingress.GetStore(), view.Name)
	switch {
	case ok && slices.Contains(s.served().Classes, view.Name):
		return hostClass.UID, nil
	case view.Spec.Controller == translate.IngressController:
		return "", nil
	default:
		return "", fmt.Errorf("%w: ingress class %q was made by the tenant", engine.ErrForeign, view.Name)
	}
}
