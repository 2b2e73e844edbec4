package syncer

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/translate"
)

// resources are the kinds that Explain knows beside custom ones, by their resource,
// with what users call them.
var resources = map[string][]string{
	"pods":                   {"pod", "po"},
	"services":               {"service", "svc"},
	"endpointslices":         {"endpointslice"},
	"configmaps":             {"configmap", "cm"},
	"secrets":                {"secret"},
	"persistentvolumeclaims": {"persistentvolumeclaim", "pvc"},
	"networkpolicies":        {"networkpolicy", "netpol"},
	"ingresses":              {"ingress", "ing"},
}

// Resource returns the resource that a user calls by a word, as kubectl takes it:
// "svc" is services. RESOURCE.GROUP stands for itself. False: nothing that goes to the
// host is called so.
func Resource(word string) (resource string, ok bool) {
	switch word {
	case "gateway", "gateways", "gtw":
		return policy.Gateways, true
	case "httproute", "httproutes":
		return policy.HTTPRoutes, true
	}
	for resource, names := range resources {
		if word == resource || slices.Contains(names, word) {
			return resource, true
		}
	}
	return word, strings.Contains(word, ".")
}

// explained is a kind of the tenant's that goes to the host, as Explain takes it.
type explained[T engine.Object] struct {
	resource string
	own      func(namespace string) engine.Reader[T]
	host     engine.Host[T]
	seen     []cache.InformerSynced
	passes   []string
	fates    func(T) []translate.Fate
	absent   string // what is to be known of an object that is not on the host
}

// Explain tells everything about the tenant's object of that name, of a resource as
// [Resource] returns it. It is ErrNotFound when there is none on either side.
func (s *Syncer) Explain(ctx context.Context, resource string, name tenant.Name) (*Explanation, error) {
	own, c := s.tenantAPI, s.caches
	switch resource {
	case "pods":
		return s.ExplainPod(ctx, name)
	case "services":
		return explainOf(ctx, s, name, explained[*corev1.Service]{
			resource, func(ns string) engine.Reader[*corev1.Service] { return own.CoreV1().Services(ns) }, s.hostServices(),
			[]cache.InformerSynced{c.tenant.services.HasSynced, c.host.services.HasSynced}, []string{kindService, kindServiceStatus},
			translate.ServiceFates, "the tenant's own API, kubernetes in default, has none",
		})
	case "endpointslices":
		return explainOf(ctx, s, name, explained[*discoveryv1.EndpointSlice]{
			resource, func(ns string) engine.Reader[*discoveryv1.EndpointSlice] { return own.DiscoveryV1().EndpointSlices(ns) }, s.hostEndpointSlices(),
			[]cache.InformerSynced{c.tenant.endpointSlices.HasSynced, c.host.endpointSlices.HasSynced}, []string{kindEndpointSlice},
			s.t.SliceFates, "slices of no Service, of the tenant's own API and of names instead of addresses stay in the tenant",
		})
	case "configmaps":
		return explainOf(ctx, s, name, explained[*corev1.ConfigMap]{
			resource, func(ns string) engine.Reader[*corev1.ConfigMap] { return own.CoreV1().ConfigMaps(ns) }, s.hostConfigMaps(""),
			[]cache.InformerSynced{c.tenant.configMaps.HasSynced, c.host.configMaps.HasSynced}, []string{kindConfigMap},
			translate.ConfigMapFates, whileUsed,
		})
	case "secrets":
		return explainOf(ctx, s, name, explained[*corev1.Secret]{
			resource, func(ns string) engine.Reader[*corev1.Secret] { return own.CoreV1().Secrets(ns) }, s.hostSecrets(""),
			[]cache.InformerSynced{c.tenant.secrets.HasSynced, c.host.secrets.HasSynced}, []string{kindSecret},
			translate.SecretFates, whileUsed,
		})
	case "persistentvolumeclaims":
		return explainOf(ctx, s, name, explained[*corev1.PersistentVolumeClaim]{
			resource, func(ns string) engine.Reader[*corev1.PersistentVolumeClaim] {
				return own.CoreV1().PersistentVolumeClaims(ns)
			}, s.hostClaims(),
			[]cache.InformerSynced{c.tenant.claims.HasSynced, c.host.claims.HasSynced}, []string{kindClaim, kindClaimStatus},
			func(claim *corev1.PersistentVolumeClaim) []translate.Fate {
				return translate.ClaimFates(claim, s.claimOffer())
			}, "what keeps it is below, or in an event on it",
		})
	case "networkpolicies":
		return explainOf(ctx, s, name, explained[*networkingv1.NetworkPolicy]{
			resource, func(ns string) engine.Reader[*networkingv1.NetworkPolicy] {
				return own.NetworkingV1().NetworkPolicies(ns)
			}, s.hostPolicies(),
			[]cache.InformerSynced{c.tenant.networkPolicies.HasSynced, c.host.networkPolicies.HasSynced}, []string{kindNetworkPolicy},
			s.t.PolicyFates, "",
		})
	case "ingresses":
		return explainOf(ctx, s, name, explained[*networkingv1.Ingress]{
			resource, func(ns string) engine.Reader[*networkingv1.Ingress] { return own.NetworkingV1().Ingresses(ns) }, s.hostIngresses(),
			[]cache.InformerSynced{c.tenant.ingresses.HasSynced, c.host.ingresses.HasSynced, c.host.configMaps.HasSynced}, []string{kindHostnames, kindIngress, kindIngressStatus},
			func(tenantIngress *networkingv1.Ingress) []translate.Fate {
				granted, taken, _ := s.answer(tenantIngress)
				return s.t.IngressFates(tenantIngress, s.served(), granted, taken)
			}, "one of a class that the plan does not have is for a controller of the tenant's own; what else keeps it is below",
		})
	default:
		return s.ExplainObject(ctx, resource, name)
	}
}

// whileUsed is said of ConfigMaps and Secrets.
const whileUsed = "it is there while a pod, an Ingress or a Gateway (their certificates), or an object of a plan's rule, refers to it"

// explainOf explains an object of a kind.
func explainOf[T engine.Object](ctx context.Context, s *Syncer, name tenant.Name, k explained[T]) (*Explanation, error) {
	if !cache.WaitForCacheSync(ctx.Done(), k.seen...) {
		return nil, fmt.Errorf("explain %s: %w", name, context.Cause(ctx))
	}
	var none T
	tenantObject, err := k.own(name.Namespace).Get(ctx, name.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		tenantObject, err = none, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the tenant's %s %s: %w", k.resource, name, err)
	}
	hostObject, onHost, err := k.host.Live(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("read the host's %s of %s: %w", k.resource, name, err)
	}
	if !onHost {
		hostObject = none
	}
	if tenantObject == none && hostObject == none {
		return nil, fmt.Errorf("%s %s: %w", k.resource, name, ErrNotFound)
	}
	e := s.explanation(name, string(k.host.HostName(name)), k.passes)
	e.Kind, e.Pairing = k.resource, pairObjects(k.host, tenantObject, hostObject, k.absent)
	if tenantObject != none {
		e.Fields = k.fates(tenantObject)
	}
	if e.TenantObject, err = shown(tenantObject); err == nil {
		e.HostObject, err = shown(hostObject)
	}
	return e, err
}

// explanation is what can be said of any object of a name.
func (s *Syncer) explanation(name tenant.Name, hostName string, passes []string) *Explanation {
	e := &Explanation{
		Namespace: name.Namespace, Name: name.Name, HostNamespace: s.config.Tenant.HostNamespace, HostName: hostName,
		WaitingWrites: s.config.Host.budget.Waiting(s.config.Tenant.ID), Patrol: s.patrol.Stats(),
	}
	e.Queued, e.Failing = s.engine.Backlog()
	for _, kind := range passes {
		e.Passes = append(e.Passes, PassState{kind, s.engine.State(engine.Key{Kind: kind, Name: name})})
	}
	return e
}

// pairObjects says in a sentence how two objects belong together; either may be nil.
func pairObjects[T engine.Object](host engine.Host[T], tenantObject, hostObject T, absent string) string {
	var none T
	if hostObject == none {
		if absent != "" {
			absent = ": " + absent
		}
		return "the object is not on the host" + absent
	}
	owner, err := host.Owner(hostObject)
	switch {
	case err != nil:
		return "the object on the host is not known as this one's, and left alone: " + err.Error()
	case tenantObject == none:
		return "the host object was made for one that is gone: it ends"
	case owner != tenantObject.GetUID():
		return "the host object was made for an older one of that name: it ends first"
	default:
		return "the host object was made for this very object (UID " + string(owner) + ")"
	}
}

// shown is an object without what the API keeps for itself, and without what a Secret
// holds.
func shown[T engine.Object](o T) (map[string]any, error) {
	var none T
	if o == none {
		return nil, nil
	}
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return nil, fmt.Errorf("show %s: %w", translate.NameOf(o), err)
	}
	if meta, ok := fields["metadata"].(map[string]any); ok {
		delete(meta, "managedFields")
	}
	if _, secret := any(o).(*corev1.Secret); secret {
		data, _ := fields["data"].(map[string]any)
		for key := range data {
			data[key] = "" // its keys say enough
		}
		delete(fields, "stringData")
		unstructured.RemoveNestedField(fields, "metadata", "annotations", corev1.LastAppliedConfigAnnotation) // kubectl writes them there, too
	}
	return fields, nil
}
