package dns

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"sublet.dev/isolation/tenant"
)

const (
	// zone is the cluster domain of every tenant.
	zone = tenant.ClusterDomain + "."
	// ttl is how many seconds answers from objects may be kept.
	ttl = 5
	// specVersion is the version of the DNS specification that the TXT record
	// dns-version.<zone> must tell (section 2.2).
	specVersion = "1.1.0"
)

// view is what one tenant may know: its own Services and their endpoints.
type view struct {
	api      netip.Addr // kubernetes.default
	services []*corev1.Service
	slices   map[string][]*discoveryv1.EndpointSlice // by host name of the Service
}

// answer is what a view says to a question. known means that the name exists, so
// that no records mean NODATA and not NXDOMAIN (RFC 2308).
type answer struct {
	records []dns.RR
	extra   []dns.RR
	known   bool
}

// target is an address behind a name.
type target struct {
	ip   netip.Addr
	name string // its own name: of the endpoint, or of the Service
}

// resolve answers a question for a name in the zone.
func (v view) resolve(q dns.Question) answer {
	name := strings.ToLower(q.Name)
	rest := strings.Split(strings.TrimSuffix(strings.TrimSuffix(name, zone), "."), ".")
	switch {
	case name == zone || len(rest) == 1 && rest[0] == "svc":
		return answer{known: true}
	case name == "dns-version."+zone:
		return txt(q, specVersion)
	case len(rest) < 2 || rest[len(rest)-1] != "svc":
		return answer{}
	}
	labels := rest[:len(rest)-1]
	if len(labels) == 1 {
		return answer{known: v.hasNamespace(labels[0])}
	}
	namespace, service := labels[len(labels)-1], labels[len(labels)-2]
	if namespace == "default" && service == "kubernetes" {
		return v.apiService(q, labels[:len(labels)-2])
	}
	for _, s := range v.services {
		if s.Annotations[tenant.AnnotationNamespace] == namespace && s.Annotations[tenant.AnnotationName] == service {
			return v.service(q, s, labels[:len(labels)-2])
		}
	}
	return answer{}
}

// hasNamespace says whether a name stands between the zone and a Service's.
func (v view) hasNamespace(namespace string) bool {
	if namespace == "default" {
		return true
	}
	for _, s := range v.services {
		if s.Annotations[tenant.AnnotationNamespace] == namespace {
			return true
		}
	}
	return false
}

// apiService answers for the tenant's own API, which has no object of the tenant
// on the host.
func (v view) apiService(q dns.Question, prefix []string) answer {
	switch {
	case len(prefix) == 0:
		return addresses(q, []target{{ip: v.api}})
	case len(prefix) == 2 && prefix[0] == "_https" && prefix[1] == "_tcp":
		return services(q, 443, []target{{ip: v.api, name: "kubernetes.default.svc." + zone}})
	}
	return answer{}
}

// service answers for a Service and the names before it: none, an endpoint's
// hostname, or _port._protocol.
func (v view) service(q dns.Question, s *corev1.Service, prefix []string) answer {
	if alias, ok := s.Annotations[tenant.AnnotationExternalName]; ok {
		return cname(q, alias, prefix)
	}
	full := s.Annotations[tenant.AnnotationName] + "." + s.Annotations[tenant.AnnotationNamespace] + ".svc." + zone
	switch {
	case len(prefix) == 0:
		return addresses(q, v.targets(s, full))
	case len(prefix) == 1 && s.Spec.ClusterIP == corev1.ClusterIPNone:
		return addresses(q, named(v.targets(s, full), prefix[0]+"."+full))
	case len(prefix) == 2 && strings.HasPrefix(prefix[0], "_") && strings.HasPrefix(prefix[1], "_"):
		return v.ports(q, s, full, prefix[0][1:], prefix[1][1:])
	case len(prefix) == 1 && (prefix[0] == "_tcp" || prefix[0] == "_udp"):
		return answer{known: true}
	}
	return answer{}
}

// targets returns what a Service's name stands for: its cluster IPs or, headless,
// its endpoints that are ready.
func (v view) targets(s *corev1.Service, full string) []target {
	if s.Spec.ClusterIP != corev1.ClusterIPNone {
		var targets []target
		for _, address := range clusterIPs(s) {
			if ip, err := netip.ParseAddr(address); err == nil { // otherwise not allocated yet
				targets = append(targets, target{ip: ip, name: full})
			}
		}
		return targets
	}
	var targets []target
	for _, slice := range v.slices[s.Name] {
		for _, e := range slice.Endpoints {
			if ready := e.Conditions.Ready; ready != nil && !*ready && !s.Spec.PublishNotReadyAddresses {
				continue
			}
			for _, a := range e.Addresses {
				if ip, err := netip.ParseAddr(a); err == nil {
					targets = append(targets, target{ip: ip, name: endpointLabel(e, ip) + "." + full})
				}
			}
		}
	}
	return targets
}

// clusterIPs returns the addresses of a Service, one of each family that it has.
func clusterIPs(s *corev1.Service) []string {
	if len(s.Spec.ClusterIPs) == 0 {
		return []string{s.Spec.ClusterIP}
	}
	return s.Spec.ClusterIPs
}

// endpointLabel is an endpoint's hostname or, without one, a label made of its
// address, as the specification leaves to the implementation (section 2.4.1).
func endpointLabel(e discoveryv1.Endpoint, ip netip.Addr) string {
	if e.Hostname != nil && *e.Hostname != "" {
		return *e.Hostname
	}
	return strings.NewReplacer(".", "-", ":", "-").Replace(ip.String())
}

// ports answers _port._protocol questions.
func (v view) ports(q dns.Question, s *corev1.Service, full, port, protocol string) answer {
	if s.Spec.ClusterIP != corev1.ClusterIPNone {
		for _, p := range s.Spec.Ports {
			if p.Name == port && strings.EqualFold(string(p.Protocol), protocol) {
				return services(q, uint16(p.Port), v.targets(s, full))
			}
		}
		return answer{}
	}
	var all answer
	for _, slice := range v.slices[s.Name] {
		for _, p := range slice.Ports {
			if p.Name == nil || p.Port == nil || p.Protocol == nil || *p.Name != port || !strings.EqualFold(string(*p.Protocol), protocol) {
				continue
			}
			one := view{slices: map[string][]*discoveryv1.EndpointSlice{s.Name: {slice}}}
			a := services(q, uint16(*p.Port), one.targets(s, full))
			all.known, all.records, all.extra = true, withNew(all.records, a.records), append(all.extra, a.extra...)
		}
	}
	return all
}

// reverse answers a PTR question. An address that is not the tenant's own has no
// name: who asks learns nothing of other tenants.
func (v view) reverse(q dns.Question, ip netip.Addr) answer {
	if ip == v.api {
		return ptr(q, "kubernetes.default.svc."+zone)
	}
	var all answer
	for _, s := range v.services {
		if _, alias := s.Annotations[tenant.AnnotationExternalName]; alias {
			continue
		}
		full := s.Annotations[tenant.AnnotationName] + "." + s.Annotations[tenant.AnnotationNamespace] + ".svc." + zone
		for _, t := range v.targets(s, full) {
			if t.ip == ip {
				a := ptr(q, t.name)
				all.known, all.records = true, withNew(all.records, a.records)
			}
		}
	}
	return all
}

// named keeps the targets with a name, and only those.
func named(targets []target, name string) []target {
	var kept []target
	for _, t := range targets {
		if strings.EqualFold(t.name, name) {
			kept = append(kept, t)
		}
	}
	return kept
}

// header begins a record that answers q.
func header(q dns.Question, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: q.Name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}

// addresses answers with the A or AAAA records of targets; a name without targets
// does not exist.
func addresses(q dns.Question, targets []target) answer {
	a := answer{known: len(targets) > 0}
	for _, t := range targets {
		switch {
		case q.Qtype == dns.TypeA && t.ip.Is4():
			a.records = append(a.records, &dns.A{Hdr: header(q, dns.TypeA), A: t.ip.AsSlice()})
		case q.Qtype == dns.TypeAAAA && t.ip.Is6():
			a.records = append(a.records, &dns.AAAA{Hdr: header(q, dns.TypeAAAA), AAAA: t.ip.AsSlice()})
		}
	}
	return a
}

// withNew appends those records that are not there yet: a target with addresses of both
// families is one target.
func withNew(records, more []dns.RR) []dns.RR {
	for _, r := range more {
		if !slices.ContainsFunc(records, func(o dns.RR) bool { return dns.IsDuplicate(o, r) }) {
			records = append(records, r)
		}
	}
	return records
}

// services answers with SRV records, and the targets' addresses beside them.
func services(q dns.Question, port uint16, targets []target) answer {
	a := answer{known: len(targets) > 0}
	if q.Qtype != dns.TypeSRV {
		return a
	}
	for _, t := range targets {
		a.records = withNew(a.records, []dns.RR{&dns.SRV{Hdr: header(q, dns.TypeSRV), Priority: 0, Weight: 100, Port: port, Target: t.name}})
		own := dns.Question{Name: t.name, Qtype: dns.TypeA}
		if t.ip.Is6() {
			own.Qtype = dns.TypeAAAA
		}
		a.extra = append(a.extra, addresses(own, []target{t}).records...)
	}
	return a
}

func cname(q dns.Question, alias string, prefix []string) answer {
	if _, valid := dns.IsDomainName(alias); !valid || len(prefix) > 0 {
		return answer{}
	}
	return answer{known: true, records: []dns.RR{&dns.CNAME{Hdr: header(q, dns.TypeCNAME), Target: dns.Fqdn(alias)}}}
}

func ptr(q dns.Question, name string) answer {
	a := answer{known: true}
	if q.Qtype == dns.TypePTR {
		a.records = []dns.RR{&dns.PTR{Hdr: header(q, dns.TypePTR), Ptr: name}}
	}
	return a
}

func txt(q dns.Question, text string) answer {
	a := answer{known: true}
	if q.Qtype == dns.TypeTXT {
		a.records = []dns.RR{&dns.TXT{Hdr: header(q, dns.TypeTXT), Txt: []string{text}}}
	}
	return a
}
