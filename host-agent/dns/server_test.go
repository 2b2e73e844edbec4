package dns_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"

	"sublet.dev/host-agent/dns"
	"sublet.dev/isolation/tenant"
)

// objects of two tenants with the same names, blue's in namespace host-blue.
var objects = []any{
	service("blue", "default", "web", "10.97.4.20", port("http", 80)),
	service("blue", "default", "db", corev1.ClusterIPNone, port("sql", 5432)),
	slice("blue", "default", "db", endpoint("10.244.0.5", "db-0", true), endpoint("10.244.0.6", "", true), endpoint("10.244.0.7", "db-2", false)),
	alias(service("blue", "default", "docs", corev1.ClusterIPNone), "docs.example.org"),
	alias(service("blue", "default", "near", corev1.ClusterIPNone), "web.default.svc.cluster.local"),
	both(service("blue", "default", "dual", "10.97.4.30", port("http", 80)), "fd00:97::430"),
	service("blue", "default", "six", "fd00:97::431", port("http", 80)),
	service("blue", "default", "peers", corev1.ClusterIPNone, port("sql", 5432)),
	slice("blue", "default", "peers", endpoint("10.244.0.8", "peer-0", true)),
	sixth(slice("blue", "default", "peers", endpoint("fd00:244::8", "peer-0", true))),
	service("green", "default", "web", "10.97.8.20", port("http", 80)),
	both(service("green", "default", "dual", "10.97.8.30", port("http", 80)), "fd00:97::830"),
	alias(service("green", "default", "out", corev1.ClusterIPNone), "c2VjcmV0.example.org"),
	service("green", "secret", "vault", "10.97.8.21", port("", 443)),
}

func meta(t, namespace, name string) metav1.ObjectMeta {
	labels, annotations := tenant.Owner{Tenant: tenant.ID(t), Name: tenant.Name{Namespace: namespace, Name: name}, UID: "u"}.Marks()
	host := string(tenant.ID(t).HostName(tenant.Name{Namespace: namespace, Name: name}))
	return metav1.ObjectMeta{Namespace: "host-" + t, Name: host, Labels: labels, Annotations: annotations}
}

func port(name string, number int32) corev1.ServicePort {
	return corev1.ServicePort{Name: name, Port: number, Protocol: corev1.ProtocolTCP}
}

func service(t, namespace, name, ip string, ports ...corev1.ServicePort) *corev1.Service {
	return &corev1.Service{ObjectMeta: meta(t, namespace, name), Spec: corev1.ServiceSpec{ClusterIP: ip, Ports: ports}}
}

func both(s *corev1.Service, second string) *corev1.Service {
	s.Spec.ClusterIPs = []string{s.Spec.ClusterIP, second}
	return s
}

// sixth makes a slice the one of the same Service's IPv6 addresses.
func sixth(s *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	s.Name, s.AddressType = s.Name+"-six", discoveryv1.AddressTypeIPv6
	return s
}

func alias(s *corev1.Service, name string) *corev1.Service {
	s.Annotations[tenant.AnnotationExternalName] = name
	return s
}

func endpoint(ip, hostname string, ready bool) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{Addresses: []string{ip}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}
	if hostname != "" {
		e.Hostname = &hostname
	}
	return e
}

func slice(t, namespace, name string, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	m := meta(t, namespace, name+"-abcde")
	m.Labels[discoveryv1.LabelServiceName] = string(tenant.ID(t).HostName(tenant.Name{Namespace: namespace, Name: name}))
	portName, number, tcp := "sql", int32(5432), corev1.ProtocolTCP
	return &discoveryv1.EndpointSlice{
		ObjectMeta: m, AddressType: discoveryv1.AddressTypeIPv4, Endpoints: endpoints,
		Ports: []discoveryv1.EndpointPort{{Name: &portName, Port: &number, Protocol: &tcp}},
	}
}

// start runs a server whose client on loopback is a pod of that tenant, or of
// nobody when tenant is "".
func start(t *testing.T, who string, upstreams ...string) string {
	t.Helper()
	byNamespace := cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}
	services := cache.NewIndexer(cache.MetaNamespaceKeyFunc, byNamespace)
	slices := cache.NewIndexer(cache.MetaNamespaceKeyFunc, byNamespace)
	for _, o := range objects {
		into := services
		if _, ok := o.(*discoveryv1.EndpointSlice); ok {
			into = slices
		}
		if err := into.Add(o); err != nil {
			t.Fatal(err)
		}
	}
	cidrs := map[string]netip.Prefix{"blue": netip.MustParsePrefix("10.97.4.0/22"), "green": netip.MustParsePrefix("10.97.8.0/22")}
	ctx, cancel := context.WithCancel(t.Context())
	config := dns.Config{
		Listen: netip.MustParseAddrPort("127.0.0.1:0"),
		ClientAt: func(netip.Addr) (dns.Client, bool) {
			return dns.Client{Namespace: "host-" + who, ServiceCIDR: cidrs[who], Internet: who != "green"}, who != ""
		},
		Services: corelisters.NewServiceLister(services), Slices: discoverylisters.NewEndpointSliceLister(slices),
		Upstreams: upstreams, Logger: slog.New(slog.DiscardHandler),
	}
	srv, err := dns.Listen(ctx, config)
	for errors.Is(err, syscall.EADDRINUSE) { // the port that is free over UDP may be taken over TCP
		srv, err = dns.Listen(ctx, config)
	}
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- srv.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return srv.Addr().String()
}

// ask returns the response code and the records, a line each, sorted.
func ask(t *testing.T, server, network, name string, qtype uint16) string {
	t.Helper()
	reply, _, err := (&mdns.Client{Net: network, Timeout: time.Minute}).ExchangeContext(t.Context(), new(mdns.Msg).SetQuestion(name, qtype), server)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	lines := []string{}
	for _, r := range reply.Answer {
		lines = append(lines, strings.TrimPrefix(r.String(), r.Header().String()))
	}
	slices.Sort(lines)
	if reply.Rcode != mdns.RcodeSuccess {
		lines = append(lines, mdns.RcodeToString[reply.Rcode])
	}
	return strings.Join(lines, " ")
}

func TestAnswers(t *testing.T) {
	cases := []struct {
		who, name string
		qtype     uint16
		want      string
	}{
		{"blue", "web.default.svc.cluster.local.", mdns.TypeA, "10.97.4.20"},
		{"green", "web.default.svc.cluster.local.", mdns.TypeA, "10.97.8.20"},
		{"blue", "WEB.default.SVC.cluster.local.", mdns.TypeA, "10.97.4.20"},
		{"blue", "web.default.svc.cluster.local.", mdns.TypeAAAA, ""},
		{"blue", "kubernetes.default.svc.cluster.local.", mdns.TypeA, "10.97.4.1"},
		{"blue", "_https._tcp.kubernetes.default.svc.cluster.local.", mdns.TypeSRV, "0 100 443 kubernetes.default.svc.cluster.local."},
		{"blue", "_http._tcp.web.default.svc.cluster.local.", mdns.TypeSRV, "0 100 80 web.default.svc.cluster.local."},
		{"blue", "_http._udp.web.default.svc.cluster.local.", mdns.TypeSRV, "NXDOMAIN"},
		{"blue", "db.default.svc.cluster.local.", mdns.TypeA, "10.244.0.5 10.244.0.6"},
		{"blue", "db-0.db.default.svc.cluster.local.", mdns.TypeA, "10.244.0.5"},
		{"blue", "10-244-0-6.db.default.svc.cluster.local.", mdns.TypeA, "10.244.0.6"},
		{"blue", "db-2.db.default.svc.cluster.local.", mdns.TypeA, "NXDOMAIN"},
		{"blue", "_sql._tcp.db.default.svc.cluster.local.", mdns.TypeSRV,
			"0 100 5432 10-244-0-6.db.default.svc.cluster.local. 0 100 5432 db-0.db.default.svc.cluster.local."},
		{"blue", "docs.default.svc.cluster.local.", mdns.TypeCNAME, "docs.example.org."},
		{"blue", "near.default.svc.cluster.local.", mdns.TypeA, "10.97.4.20 web.default.svc.cluster.local."},
		{"blue", "dns-version.cluster.local.", mdns.TypeTXT, `"1.1.0"`},
		{"blue", "nothing.default.svc.cluster.local.", mdns.TypeA, "NXDOMAIN"},
		{"blue", "default.svc.cluster.local.", mdns.TypeA, ""},
		{"blue", "secret.svc.cluster.local.", mdns.TypeA, "NXDOMAIN"},
		{"blue", "20.4.97.10.in-addr.arpa.", mdns.TypePTR, "web.default.svc.cluster.local."},
		{"blue", "5.0.244.10.in-addr.arpa.", mdns.TypePTR, "db-0.db.default.svc.cluster.local."},
		// both families
		{"blue", "dual.default.svc.cluster.local.", mdns.TypeA, "10.97.4.30"},
		{"blue", "dual.default.svc.cluster.local.", mdns.TypeAAAA, "fd00:97::430"},
		{"green", "dual.default.svc.cluster.local.", mdns.TypeAAAA, "fd00:97::830"},
		{"blue", "_http._tcp.dual.default.svc.cluster.local.", mdns.TypeSRV, "0 100 80 dual.default.svc.cluster.local."},
		{"blue", "six.default.svc.cluster.local.", mdns.TypeA, ""},
		{"blue", "six.default.svc.cluster.local.", mdns.TypeAAAA, "fd00:97::431"},
		{"blue", "peers.default.svc.cluster.local.", mdns.TypeA, "10.244.0.8"},
		{"blue", "peers.default.svc.cluster.local.", mdns.TypeAAAA, "fd00:244::8"},
		{"blue", "peer-0.peers.default.svc.cluster.local.", mdns.TypeAAAA, "fd00:244::8"},
		{"blue", "_sql._tcp.peers.default.svc.cluster.local.", mdns.TypeSRV, "0 100 5432 peer-0.peers.default.svc.cluster.local."},
		{"blue", reverse6(t, "fd00:97::430"), mdns.TypePTR, "dual.default.svc.cluster.local."},
		{"blue", reverse6(t, "fd00:244::8"), mdns.TypePTR, "peer-0.peers.default.svc.cluster.local."},
		{"blue", reverse6(t, "fd00:97::830"), mdns.TypePTR, "NXDOMAIN"}, // green's
		{"green", reverse6(t, "fd00:97::830"), mdns.TypePTR, "dual.default.svc.cluster.local."},
		{"blue", "0.3.4.ip6.arpa.", mdns.TypePTR, "NXDOMAIN"},
		// what is another tenant's
		{"blue", "vault.secret.svc.cluster.local.", mdns.TypeA, "NXDOMAIN"},
		{"green", "vault.secret.svc.cluster.local.", mdns.TypeA, "10.97.8.21"},
		{"blue", "21.8.97.10.in-addr.arpa.", mdns.TypePTR, "NXDOMAIN"},
		{"green", "21.8.97.10.in-addr.arpa.", mdns.TypePTR, "vault.secret.svc.cluster.local."},
		{"", "web.default.svc.cluster.local.", mdns.TypeA, "REFUSED"},
		// what nobody gets
		{"blue", "cluster.local.", mdns.TypeANY, "REFUSED"},
		{"blue", "cluster.local.", mdns.TypeAXFR, "REFUSED"},
	}
	servers := map[string]string{"blue": start(t, "blue"), "green": start(t, "green"), "": start(t, "")}
	for _, c := range cases {
		for _, network := range []string{"udp", "tcp"} {
			t.Run(fmt.Sprintf("%s asks %s %s over %s", c.who, mdns.TypeToString[c.qtype], c.name, network), func(t *testing.T) {
				if got := ask(t, servers[c.who], network, c.name, c.qtype); got != c.want {
					t.Errorf("got %q, want %q", got, c.want)
				}
			})
		}
	}
}

// reverse6 is the name of the reverse of an address.
func reverse6(t *testing.T, address string) string {
	t.Helper()
	name, err := mdns.ReverseAddr(address)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestForward(t *testing.T) {
	upstream := &mdns.Server{Addr: "127.0.0.1:0", Net: "udp"}
	started := make(chan struct{})
	upstream.NotifyStartedFunc = func() { close(started) }
	upstream.Handler = mdns.HandlerFunc(func(w mdns.ResponseWriter, q *mdns.Msg) {
		reply := new(mdns.Msg).SetReply(q)
		reply.Answer = []mdns.RR{&mdns.A{Hdr: mdns.RR_Header{Name: q.Question[0].Name, Rrtype: mdns.TypeA, Class: mdns.ClassINET}, A: []byte{203, 0, 113, 7}}}
		_ = w.WriteMsg(reply) // the client of this test would say so
	})
	done := make(chan error)
	go func() { done <- upstream.ListenAndServe() }()
	<-started
	server := start(t, "blue", upstream.PacketConn.LocalAddr().String())
	for name, want := range map[string]string{
		"www.example.org.":                "203.0.113.7",
		"docs.default.svc.cluster.local.": "203.0.113.7 docs.example.org.",
	} {
		if got := ask(t, server, "udp", name, mdns.TypeA); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	// A tenant whose plan has no internet sends no word there in a name.
	closed := start(t, "green", upstream.PacketConn.LocalAddr().String())
	for name, want := range map[string]string{
		"c2VjcmV0.example.org.": "REFUSED", "7.113.0.203.in-addr.arpa.": "REFUSED", "web.default.svc.cluster.local.": "10.97.8.20",
		"out.default.svc.cluster.local.": "c2VjcmV0.example.org.",
	} {
		qtype := mdns.TypeA
		if strings.HasSuffix(name, "arpa.") {
			qtype = mdns.TypePTR
		}
		if got := ask(t, closed, "udp", name, qtype); got != want {
			t.Errorf("without the internet: %s: got %q, want %q", name, got, want)
		}
	}
	if err := upstream.Shutdown(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := ask(t, start(t, "blue"), "udp", "www.example.org.", mdns.TypeA); got != "SERVFAIL" {
		t.Errorf("without a resolver: got %q, want SERVFAIL", got)
	}
}

// TestOtherQuestions: nothing but the internet's names is answered, over whatever class
// and code somebody asks.
func TestOtherQuestions(t *testing.T) {
	server := start(t, "blue")
	question := func(change func(*mdns.Msg)) string {
		t.Helper()
		q := new(mdns.Msg).SetQuestion("web.default.svc.cluster.local.", mdns.TypeA)
		change(q)
		reply, _, err := (&mdns.Client{Net: "tcp", Timeout: time.Minute}).ExchangeContext(t.Context(), q, server)
		if err != nil {
			t.Fatal(err)
		}
		if len(reply.Answer) > 0 {
			return "an answer"
		}
		return mdns.RcodeToString[reply.Rcode]
	}
	for want, changes := range map[string][]func(*mdns.Msg){
		"an answer": {func(*mdns.Msg) {}},
		"REFUSED": {
			func(q *mdns.Msg) {
				q.Question[0] = mdns.Question{Name: "version.bind.", Qtype: mdns.TypeTXT, Qclass: mdns.ClassCHAOS}
			},
			func(q *mdns.Msg) { q.Question[0].Qclass = mdns.ClassANY },
			func(q *mdns.Msg) { q.SetAxfr("cluster.local.") },
			func(q *mdns.Msg) { q.SetIxfr("cluster.local.", 1, "a.", "b.") },
		},
		"NOTIMP":  {func(q *mdns.Msg) { q.Opcode = mdns.OpcodeUpdate }, func(q *mdns.Msg) { q.Opcode = mdns.OpcodeNotify }},
		"FORMERR": {func(q *mdns.Msg) { q.Question = append(q.Question, q.Question[0]) }},
	} {
		for i, change := range changes {
			if got := question(change); got != want {
				t.Errorf("%s %d: %s", want, i, got)
			}
		}
	}
}
