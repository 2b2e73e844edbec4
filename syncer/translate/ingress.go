package translate

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
)

// ruleIngress is the rule of refusals of Ingresses.
const ruleIngress = "ingress"

// SuffixHostnames ends the tenant's name of what asks for an Ingress's hostnames.
const SuffixHostnames = ":hostnames"

// IngressController is the controller that a tenant sees behind the ingress classes of
// its plan. A class of that controller is a view, and the syncer's.
const IngressController = "ingress." + tenant.Domain + "/host"

// Ingresses are how a tenant's plan has Ingresses served.
type Ingresses struct {
	// Classes are those of the host that Ingresses may name; without any none gets to
	// the host.
	Classes []string
	// Annotations are put on host Ingresses.
	Annotations map[string]string
	// GatewayClasses are those of the host that Gateways may name.
	GatewayClasses []string
}

// Serves says whether an Ingress is the host's to serve. One of any other class is a
// controller's of the tenant's own.
func (i Ingresses) Serves(tenantIngress *networkingv1.Ingress) bool {
	return slices.Contains(i.Classes, classOf(tenantIngress))
}

// classOf returns the class of an Ingress, "" for none; the annotation is what was
// before the field.
func classOf(i *networkingv1.Ingress) string {
	if c := i.Spec.IngressClassName; c != nil {
		return *c
	}
	return i.Annotations["kubernetes.io/ingress.class"]
}

// Hostnames returns the ConfigMap by which an Ingress asks for its hostnames.
func (t Translation) Hostnames(tenantIngress *networkingv1.Ingress) *corev1.ConfigMap {
	var names []string
	for _, r := range tenantIngress.Spec.Rules {
		names = append(names, r.Host)
	}
	return t.Asks(tenantIngress, SuffixHostnames, askable(names))
}

// MergeHostnames is the Merge of what asks for hostnames: the manager's answers stay.
func MergeHostnames(have, want *corev1.ConfigMap) (*corev1.ConfigMap, engine.Difference) {
	want = want.DeepCopy()
	for _, answer := range []string{tenant.AnnotationGranted, tenant.AnnotationTaken, tenant.AnnotationAnswered} {
		if v, ok := have.Annotations[answer]; ok {
			want.Annotations[answer] = v
		}
	}
	return MergeConfigMap(have, want)
}

// Ingress returns the host Ingress of a tenant's, of a class of its plan and for the
// hostnames that the tenant has; taken are those that another has. Backends are the
// tenant's Services, a default backend serves what is left of the Ingress's own
// hostnames, and of no other. Rules that cannot be so are left out, and the refusals
// say why. The result is nil when nothing is left, or it is not the host's to serve.
func (t Translation) Ingress(tenantIngress *networkingv1.Ingress, plan Ingresses, granted, taken []string) (*networkingv1.Ingress, []policy.Refusal) {
	if !plan.Serves(tenantIngress) {
		return nil, nil
	}
	b := ingressBuilder{Translation: t, from: tenantIngress, granted: granted, taken: taken}
	hostIngress := &networkingv1.Ingress{ObjectMeta: t.hostMeta(tenantIngress, "")}
	class := classOf(tenantIngress)
	hostIngress.Spec.IngressClassName = &class
	for i := range tenantIngress.Spec.Rules {
		if rule, ok := b.rule(&tenantIngress.Spec.Rules[i], fmt.Sprintf("spec.rules[%d]", i)); ok {
			hostIngress.Spec.Rules = append(hostIngress.Spec.Rules, rule)
		}
	}
	if len(tenantIngress.Spec.Rules) == 0 {
		b.refuse("spec.rules", "it names no hostname: an Ingress serves those that its rules name")
	}
	if len(hostIngress.Spec.Rules) == 0 {
		return nil, b.found
	}
	hostIngress.Spec.TLS = b.tls(hostIngress.Spec.Rules)
	force(&hostIngress.ObjectMeta, plan.Annotations)
	return hostIngress, b.found
}

type ingressBuilder struct {
	Translation
	from           *networkingv1.Ingress
	granted, taken []string
	found          []policy.Refusal
}

func (b *ingressBuilder) refuse(field, reason string) {
	b.found = append(b.found, policy.Refusal{Rule: ruleIngress, Field: field, Reason: reason})
}

// rule translates a rule; false when nothing of it can be served.
func (b *ingressBuilder) rule(from *networkingv1.IngressRule, at string) (networkingv1.IngressRule, bool) {
	to := networkingv1.IngressRule{Host: from.Host}
	switch {
	case from.Host == "":
		b.refuse(at+".host", "it serves every hostname: name those that are yours")
		return to, false
	case slices.Contains(b.taken, from.Host):
		b.refuse(at+".host", "the hostname "+from.Host+" is another's, or overlaps one that is: choose another")
		return to, false
	case !slices.Contains(b.granted, from.Host):
		b.refuse(at+".host", fmt.Sprintf("your plan does not allow the hostname %s, or not so many: %d in an Ingress, %d in all", from.Host, policy.MaxHostnamesOfOne, policy.MaxHostnames))
		return to, false
	}
	http := &networkingv1.HTTPIngressRuleValue{}
	if from.HTTP != nil {
		for i := range from.HTTP.Paths {
			if path, ok := b.path(&from.HTTP.Paths[i], fmt.Sprintf("%s.http.paths[%d]", at, i)); ok {
				http.Paths = append(http.Paths, path)
			}
		}
	}
	if d := b.from.Spec.DefaultBackend; d != nil && !servesAll(http.Paths) {
		if backend, ok := b.backend(d, "spec.defaultBackend"); ok {
			http.Paths = append(http.Paths, networkingv1.HTTPIngressPath{Path: "/", PathType: prefix(), Backend: backend})
		}
	}
	to.HTTP = http
	return to, len(http.Paths) > 0
}

func prefix() *networkingv1.PathType {
	p := networkingv1.PathTypePrefix
	return &p
}

func servesAll(paths []networkingv1.HTTPIngressPath) bool {
	return slices.ContainsFunc(paths, func(p networkingv1.HTTPIngressPath) bool {
		return p.Path == "/" && *p.PathType == networkingv1.PathTypePrefix
	})
}

// plainPath matches paths that mean the same to every controller: some have read others
// as parts of their configuration.
var plainPath = regexp.MustCompile(`^/[A-Za-z0-9/._~@:+,=%!&()*-]*$`)

// path translates a path. What a controller makes of ImplementationSpecific is its own
// affair, and not a tenant's: it is a prefix.
func (b *ingressBuilder) path(from *networkingv1.HTTPIngressPath, at string) (networkingv1.HTTPIngressPath, bool) {
	to := networkingv1.HTTPIngressPath{Path: from.Path, PathType: prefix()}
	if from.PathType != nil && *from.PathType == networkingv1.PathTypeExact {
		exact := networkingv1.PathTypeExact
		to.PathType = &exact
	}
	if to.Path == "" {
		to.Path = "/"
	}
	if len(to.Path) > 1024 || !plainPath.MatchString(to.Path) {
		b.refuse(at+".path", "it has characters that are not offered in paths, or too many: use letters, digits and /._~@:+,=%!&()*-")
		return to, false
	}
	backend, ok := b.backend(&from.Backend, at+".backend")
	to.Backend = backend
	return to, ok
}

// backend translates a backend: a Service of the tenant's, in the Ingress's namespace.
func (b *ingressBuilder) backend(from *networkingv1.IngressBackend, at string) (networkingv1.IngressBackend, bool) {
	if from.Service == nil || from.Resource != nil {
		b.refuse(at, "it leads to something that is no Service: use service")
		return networkingv1.IngressBackend{}, false
	}
	return networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{
		Name: b.hostName(b.from.Namespace, from.Service.Name),
		Port: networkingv1.ServiceBackendPort{Name: from.Service.Port.Name, Number: from.Service.Port.Number},
	}}, true
}

// tls translates the certificates: each for hostnames that the host Ingress serves. One
// that names none is for all of them.
func (b *ingressBuilder) tls(rules []networkingv1.IngressRule) []networkingv1.IngressTLS {
	var served []string
	for _, r := range rules {
		served = append(served, r.Host)
	}
	var all []networkingv1.IngressTLS
	for _, from := range b.from.Spec.TLS {
		to := networkingv1.IngressTLS{Hosts: slices.Clone(served)}
		if len(from.Hosts) > 0 {
			to.Hosts = slices.DeleteFunc(slices.Clone(from.Hosts), func(h string) bool { return !slices.Contains(served, h) })
		}
		if from.SecretName != "" {
			to.SecretName = b.hostName(b.from.Namespace, from.SecretName)
		}
		if len(to.Hosts) > 0 {
			all = append(all, to)
		}
	}
	return all
}

// IngressSecrets lists the Secrets that an Ingress refers to, by name.
func IngressSecrets(tenantIngress *networkingv1.Ingress) []string {
	var names []string
	for _, tls := range tenantIngress.Spec.TLS {
		if tls.SecretName != "" {
			names = append(names, tls.SecretName)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// MergeIngress is the Merge of host Ingresses.
func MergeIngress(have, want *networkingv1.Ingress) (*networkingv1.Ingress, engine.Difference) {
	merged := have.DeepCopy()
	changed := mergeMeta(&merged.ObjectMeta, want.ObjectMeta)
	changed = set(&merged.Spec, want.Spec) || changed
	return merged, difference(changed)
}

// IngressStatus returns the tenant's Ingress with the addresses at which the host's
// controller serves it, and whether that changed anything. What is no address or name
// is left out.
func IngressStatus(hostIngress, tenantIngress *networkingv1.Ingress) (*networkingv1.Ingress, bool) {
	merged := tenantIngress.DeepCopy()
	var seen []networkingv1.IngressLoadBalancerIngress
	for _, from := range hostIngress.Status.LoadBalancer.Ingress {
		var to networkingv1.IngressLoadBalancerIngress
		if addr, err := netip.ParseAddr(from.IP); err == nil && addr.Zone() == "" {
			to.IP = addr.String()
		}
		if len(validation.IsDNS1123Subdomain(from.Hostname)) == 0 {
			to.Hostname = from.Hostname
		}
		for _, p := range from.Ports {
			port := networkingv1.IngressPortStatus{Port: p.Port, Protocol: p.Protocol}
			if p.Error != nil && len(validation.IsQualifiedName(*p.Error)) == 0 {
				port.Error = p.Error
			}
			to.Ports = append(to.Ports, port)
		}
		if to.IP != "" || to.Hostname != "" {
			seen = append(seen, to)
		}
	}
	return merged, set(&merged.Status.LoadBalancer.Ingress, seen)
}

// IngressClass returns the tenant's view of an ingress class of the host: its name, and
// whether it is the tenant's default.
func (t Translation) IngressClass(hostClass *networkingv1.IngressClass, byDefault bool) *networkingv1.IngressClass {
	view := &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: hostClass.Name}, Spec: networkingv1.IngressClassSpec{Controller: IngressController}}
	if byDefault {
		view.Annotations = map[string]string{networkingv1.AnnotationIsDefaultIngressClass: "true"}
	}
	return view
}

// MergeIngressClass is the Merge of views of ingress classes. What is in the place of
// one with another controller is made again, for a controller cannot be changed.
func MergeIngressClass(have, want *networkingv1.IngressClass) (*networkingv1.IngressClass, engine.Difference) {
	merged := have.DeepCopy()
	if merged.Spec.Controller != want.Spec.Controller {
		return merged, engine.Immutable
	}
	changed := set(&merged.Spec.Parameters, nil)
	if had := merged.Annotations[networkingv1.AnnotationIsDefaultIngressClass]; had != want.Annotations[networkingv1.AnnotationIsDefaultIngressClass] {
		delete(merged.Annotations, networkingv1.AnnotationIsDefaultIngressClass)
		if v, ok := want.Annotations[networkingv1.AnnotationIsDefaultIngressClass]; ok {
			metav1.SetMetaDataAnnotation(&merged.ObjectMeta, networkingv1.AnnotationIsDefaultIngressClass, v)
		}
		changed = true
	}
	return merged, difference(changed)
}

// ingressDecisions are the decisions on the fields of Ingresses.
var ingressDecisions = map[string]fields{
	"IngressSpec":           all(translated, "IngressClassName", "DefaultBackend", "TLS", "Rules"),
	"IngressTLS":            all(translated, "Hosts", "SecretName"),
	"IngressRule":           with(all(copied, "Host"), all(translated, "IngressRuleValue")),
	"IngressRuleValue":      all(translated, "HTTP"),
	"HTTPIngressRuleValue":  all(translated, "Paths"),
	"HTTPIngressPath":       with(all(copied, "Path"), all(translated, "PathType", "Backend")),
	"IngressBackend":        with(all(translated, "Service"), fields{"Resource": refuse("it leads to something that is no Service: use service")}),
	"IngressServiceBackend": with(all(translated, "Name"), all(copied, "Port")),
	"ServiceBackendPort":    all(copied, "Name", "Number"),
}
