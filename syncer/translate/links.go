package translate

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"sublet.dev/isolation/tenant"
)

// serviceVariables returns the variables that describe Services to a container:
// always those of the tenant's own API (the host's kubelet would else show the
// host's), and those of the pod's namespace unless the pod does not want them. As
// on any cluster they yield to everything that the container defines itself.
func (b *podBuilder) serviceVariables(c corev1.Container) []corev1.EnvVar {
	variables := linkVariables(b.apiService())
	if links := b.tenantPod.Spec.EnableServiceLinks; links == nil || *links {
		services := slices.SortedFunc(slices.Values(b.Lookup.Services(b.tenantPod.Namespace)),
			func(x, y *corev1.Service) int { return cmp.Compare(x.Name, y.Name) })
		for _, s := range services {
			if NameOf(s) != apiService {
				variables = append(variables, linkVariables(s)...)
			}
		}
	}
	return slices.DeleteFunc(variables, func(v corev1.EnvVar) bool { return b.defines(&c, v.Name) })
}

// apiService is what default/kubernetes always is.
func (b *podBuilder) apiService() *corev1.Service {
	s := &corev1.Service{}
	s.Name = apiService.Name
	s.Spec.ClusterIP = tenant.APIAddress(b.Tenant.ServiceCIDR).String()
	s.Spec.Ports = []corev1.ServicePort{{Name: "https", Protocol: corev1.ProtocolTCP, Port: 443}}
	return s
}

// defines says whether the container itself gives the variable a value.
func (b *podBuilder) defines(c *corev1.Container, variable string) bool {
	if slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == variable }) {
		return true
	}
	return slices.ContainsFunc(c.EnvFrom, func(f corev1.EnvFromSource) bool {
		key, ok := strings.CutPrefix(variable, f.Prefix)
		return ok && b.holds(f, key)
	})
}

// holds says whether the source has the key.
func (b *podBuilder) holds(f corev1.EnvFromSource, key string) bool {
	namespace, found := b.tenantPod.Namespace, false
	if r := f.ConfigMapRef; r != nil {
		if m, ok := b.Data.ConfigMap(tenant.Name{Namespace: namespace, Name: r.Name}); ok {
			_, found = m.Data[key]
		}
	}
	if r := f.SecretRef; r != nil && !found {
		if s, ok := b.Data.Secret(tenant.Name{Namespace: namespace, Name: r.Name}); ok {
			_, found = s.Data[key]
		}
	}
	return found
}

// linkVariables returns the variables of one Service, as
// https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
// describes them. A Service without an address has none.
func linkVariables(s *corev1.Service) []corev1.EnvVar {
	ip := s.Spec.ClusterIP
	if ip == "" || ip == corev1.ClusterIPNone || len(s.Spec.Ports) == 0 || s.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	name := strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
	var variables []corev1.EnvVar
	add := func(key, value string) { variables = append(variables, corev1.EnvVar{Name: name + key, Value: value}) }
	url := func(p corev1.ServicePort) string {
		return strings.ToLower(string(p.Protocol)) + "://" + net.JoinHostPort(ip, strconv.Itoa(int(p.Port)))
	}
	add("_SERVICE_HOST", ip)
	add("_SERVICE_PORT", strconv.Itoa(int(s.Spec.Ports[0].Port)))
	for _, p := range s.Spec.Ports {
		if p.Name != "" {
			add("_SERVICE_PORT_"+strings.ToUpper(strings.ReplaceAll(p.Name, "-", "_")), strconv.Itoa(int(p.Port)))
		}
	}
	add("_PORT", url(s.Spec.Ports[0]))
	for _, p := range s.Spec.Ports {
		prefix := fmt.Sprintf("_PORT_%d_%s", p.Port, strings.ToUpper(string(p.Protocol)))
		add(prefix, url(p))
		add(prefix+"_PROTO", strings.ToLower(string(p.Protocol)))
		add(prefix+"_PORT", strconv.Itoa(int(p.Port)))
		add(prefix+"_ADDR", ip)
	}
	return variables
}
