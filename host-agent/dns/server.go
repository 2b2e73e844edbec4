package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"

	discoveryv1 "k8s.io/api/discovery/v1"

	"sublet.dev/isolation/tenant"
)

const (
	// inFlight bounds the queries that are forwarded at one time; more are
	// answered with SERVFAIL, so a flood costs the node no more than this.
	inFlight = 256
	// patience is how long the node's resolvers may take.
	patience = 3 * time.Second
	// maxAliases bounds a chain of ExternalName Services.
	maxAliases = 8
)

// Client is the tenant behind a source address.
type Client struct {
	Namespace   string       // the tenant's host namespace
	ServiceCIDR netip.Prefix // the tenant's slice
	// Internet: the node's resolvers are asked for names outside the cluster. Without
	// it they are refused, for a name is a message to whoever answers for it.
	Internet bool
}

// Config is what a Server needs. All fields but Upstreams are required.
type Config struct {
	// Listen is where to answer, UDP and TCP. Port 0 takes a free one.
	Listen netip.AddrPort
	// ClientAt returns whose pod has an address on this node. It is called for
	// each query and must be safe for concurrent use.
	ClientAt func(netip.Addr) (Client, bool)
	// Services and Slices list host objects, in all tenants' namespaces.
	Services corelisters.ServiceLister
	Slices   discoverylisters.EndpointSliceLister
	// Upstreams are the node's resolvers as host:port, asked in order; none means
	// that no name outside the cluster is known.
	Upstreams []string
	Logger    *slog.Logger
}

// Server answers the DNS queries of a node's pods.
type Server struct {
	Config
	udp      net.PacketConn
	tcp      net.Listener
	forwards chan struct{}
}

// Listen opens the sockets; Run answers on them. An error says which address was
// not to be had.
func Listen(ctx context.Context, c Config) (*Server, error) {
	var lc net.ListenConfig
	udp, err := lc.ListenPacket(ctx, "udp", c.Listen.String())
	if err != nil {
		return nil, fmt.Errorf("listen for DNS: %w", err)
	}
	at := udp.LocalAddr().(*net.UDPAddr).AddrPort() // of a UDP socket it is always one
	tcp, err := lc.Listen(ctx, "tcp", netip.AddrPortFrom(c.Listen.Addr(), at.Port()).String())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for DNS: %w", err), udp.Close())
	}
	return &Server{Config: c, udp: udp, tcp: tcp, forwards: make(chan struct{}, inFlight)}, nil
}

// Addr returns where the server listens, over UDP and TCP.
func (s *Server) Addr() netip.AddrPort { return s.tcp.Addr().(*net.TCPAddr).AddrPort() }

// Run answers until ctx ends, then closes the sockets, waits for what is being
// answered and returns nil.
func (s *Server) Run(ctx context.Context) error {
	servers := []*dns.Server{
		{PacketConn: s.udp, Handler: s.handler(ctx)},
		{Listener: s.tcp, Handler: s.handler(ctx), ReadTimeout: patience, MaxTCPQueries: 128},
	}
	errs := make(chan error, len(servers))
	started := sync.WaitGroup{}
	for _, srv := range servers {
		started.Add(1)
		srv.NotifyStartedFunc = sync.OnceFunc(started.Done)
		go func() {
			err := srv.ActivateAndServe()
			srv.NotifyStartedFunc() // when it never started
			errs <- err
		}()
	}
	started.Wait()
	var err error
	running := len(servers)
	select {
	case err = <-errs:
		running--
	case <-ctx.Done():
	}
	for _, srv := range servers {
		_ = srv.Shutdown() // an error says only that it had ended by itself
	}
	for range running {
		err = errors.Join(err, <-errs)
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("serve DNS: %w", err)
}

func (s *Server) handler(ctx context.Context) dns.Handler {
	return dns.HandlerFunc(func(w dns.ResponseWriter, query *dns.Msg) {
		reply := s.reply(ctx, client(w.RemoteAddr()), query)
		if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
			reply.Truncate(sizeFor(query))
		}
		if err := w.WriteMsg(reply); err != nil {
			s.Logger.Debug("a DNS answer was not sent", "client", w.RemoteAddr(), "err", err)
		}
	})
}

// client returns the address behind a connection.
func client(a net.Addr) netip.Addr {
	at, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr().Unmap()
}

// sizeFor returns how many bytes of answer a UDP client takes (RFC 6891).
func sizeFor(query *dns.Msg) int {
	if opt := query.IsEdns0(); opt != nil {
		return int(opt.UDPSize())
	}
	return dns.MinMsgSize
}

// reply answers one query.
func (s *Server) reply(ctx context.Context, from netip.Addr, query *dns.Msg) *dns.Msg {
	who, ok := s.ClientAt(from)
	switch {
	case !ok:
		return failure(query, dns.RcodeRefused)
	case query.Opcode != dns.OpcodeQuery:
		return failure(query, dns.RcodeNotImplemented)
	case len(query.Question) != 1:
		return failure(query, dns.RcodeFormatError)
	}
	q := query.Question[0]
	switch {
	case q.Qclass != dns.ClassINET, q.Qtype == dns.TypeAXFR, q.Qtype == dns.TypeIXFR, q.Qtype == dns.TypeANY:
		return failure(query, dns.RcodeRefused)
	case dns.IsSubDomain(zone, strings.ToLower(q.Name)):
		return s.cluster(ctx, who, query)
	case dns.IsSubDomain("in-addr.arpa.", strings.ToLower(q.Name)), dns.IsSubDomain("ip6.arpa.", strings.ToLower(q.Name)):
		return s.reverse(ctx, who, query)
	}
	return s.forward(ctx, who, query)
}

func failure(query *dns.Msg, rcode int) *dns.Msg { return new(dns.Msg).SetRcode(query, rcode) }

// cluster answers for a name in the cluster domain.
func (s *Server) cluster(ctx context.Context, who Client, query *dns.Msg) *dns.Msg {
	v, err := s.view(who)
	if err != nil {
		s.Logger.Error("DNS objects were not listed", "namespace", who.Namespace, "err", err)
		return failure(query, dns.RcodeServerFailure)
	}
	q := query.Question[0]
	a := v.resolve(q)
	for n := 0; n < maxAliases && q.Qtype != dns.TypeCNAME && len(a.records) > 0; n++ {
		alias, ok := a.records[len(a.records)-1].(*dns.CNAME)
		if !ok {
			break
		}
		next := dns.Question{Name: alias.Target, Qtype: q.Qtype, Qclass: q.Qclass}
		if dns.IsSubDomain(zone, strings.ToLower(next.Name)) {
			a.records = append(a.records, v.resolve(next).records...)
			continue
		}
		outside := new(dns.Msg).SetQuestion(next.Name, next.Qtype)
		a.records = append(a.records, s.forward(ctx, who, outside).Answer...)
		break
	}
	return authoritative(query, a)
}

// authoritative makes the message for an answer of ours.
func authoritative(query *dns.Msg, a answer) *dns.Msg {
	reply := new(dns.Msg).SetReply(query)
	reply.Authoritative, reply.RecursionAvailable = true, true
	reply.Answer, reply.Extra = a.records, a.extra
	if !a.known {
		reply.Rcode = dns.RcodeNameError
	}
	if len(a.records) == 0 { // RFC 2308: how long to remember that there is none
		reply.Ns = []dns.RR{&dns.SOA{
			Hdr: dns.RR_Header{Name: zone, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl},
			Ns:  "ns.dns." + zone, Mbox: "hostmaster." + zone,
			Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: ttl,
		}}
	}
	return reply
}

// reverse answers for an address: the tenant's own by their names, other addresses
// that are not public by nothing, public ones by the node's resolvers.
func (s *Server) reverse(ctx context.Context, who Client, query *dns.Msg) *dns.Msg {
	ip, ok := reverseAddr(query.Question[0].Name)
	if ok && ip.IsGlobalUnicast() && !ip.IsPrivate() {
		return s.forward(ctx, who, query)
	}
	v, err := s.view(who)
	if err != nil {
		s.Logger.Error("DNS objects were not listed", "namespace", who.Namespace, "err", err)
		return failure(query, dns.RcodeServerFailure)
	}
	if !ok {
		return authoritative(query, answer{})
	}
	return authoritative(query, v.reverse(query.Question[0], ip))
}

// reverseAddr reads the address out of a name below in-addr.arpa or ip6.arpa.
func reverseAddr(name string) (netip.Addr, bool) {
	if nibbles, found := strings.CutSuffix(strings.ToLower(name), ".ip6.arpa."); found {
		return reverseAddr6(strings.Split(nibbles, "."))
	}
	digits, found := strings.CutSuffix(strings.ToLower(name), ".in-addr.arpa.")
	labels := strings.Split(digits, ".")
	if !found || len(labels) != 4 {
		return netip.Addr{}, false
	}
	ip, err := netip.ParseAddr(labels[3] + "." + labels[2] + "." + labels[1] + "." + labels[0])
	return ip, err == nil
}

// reverseAddr6 reads an address of IPv6 out of its digits, the last one first (RFC 3596,
// section 2.5).
func reverseAddr6(nibbles []string) (netip.Addr, bool) {
	var a [16]byte
	if len(nibbles) != 2*len(a) {
		return netip.Addr{}, false
	}
	for i, digit := range nibbles {
		n, err := strconv.ParseUint(digit, 16, 4)
		if err != nil || len(digit) != 1 {
			return netip.Addr{}, false
		}
		at := len(a) - 1 - i/2
		a[at] |= byte(n) << (4 * (i % 2))
	}
	return netip.AddrFrom16(a), true
}

// view lists what a tenant may know.
func (s *Server) view(who Client) (view, error) {
	bySyncer := labels.SelectorFromSet(labels.Set{tenant.LabelManagedBy: tenant.ManagedBySyncer})
	hostServices, err := s.Services.Services(who.Namespace).List(bySyncer)
	if err != nil {
		return view{}, fmt.Errorf("list host services: %w", err)
	}
	hostSlices, err := s.Slices.EndpointSlices(who.Namespace).List(bySyncer)
	if err != nil {
		return view{}, fmt.Errorf("list host endpoint slices: %w", err)
	}
	v := view{api: tenant.APIAddress(who.ServiceCIDR), services: hostServices, slices: map[string][]*discoveryv1.EndpointSlice{}}
	for _, slice := range hostSlices {
		name := slice.Labels[discoveryv1.LabelServiceName]
		v.slices[name] = append(v.slices[name], slice)
	}
	return v, nil
}

// forward asks the node's resolvers, over TCP when the answer does not fit UDP.
func (s *Server) forward(ctx context.Context, who Client, query *dns.Msg) *dns.Msg {
	if !who.Internet {
		return failure(query, dns.RcodeRefused)
	}
	select {
	case s.forwards <- struct{}{}:
		defer func() { <-s.forwards }()
	default:
		return failure(query, dns.RcodeServerFailure)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	ask := query.Copy()
	ask.Id = dns.Id()
	for _, upstream := range s.Upstreams {
		reply, _, err := (&dns.Client{Net: "udp"}).ExchangeContext(ctx, ask, upstream)
		if err == nil && reply.Truncated {
			reply, _, err = (&dns.Client{Net: "tcp"}).ExchangeContext(ctx, ask, upstream)
		}
		if err == nil {
			reply.Id = query.Id
			return reply
		}
	}
	return failure(query, dns.RcodeServerFailure)
}
