package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage/value"
	metricsapi "sigs.k8s.io/metrics-server/pkg/api"

	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/tenant-apiserver/plan"
)

// Options describe one control plane.
type Options struct {
	// Name appears in logs and metrics; it need not be unique.
	Name string
	// Endpoint is the storage's address, registered with etcdclient.
	Endpoint string
	// Transformer encrypts all values on their way into the storage, those of
	// custom resources and of upstream's own bookkeeping included. Nil: none are.
	Transformer value.Transformer
	// PKI is the control plane's own authority: clients present its
	// certificates, and it signs service account tokens.
	PKI *pki.Authority
	// ServiceCIDR is the range of ClusterIPs. Its first address is the
	// `kubernetes` Service.
	ServiceCIDR netip.Prefix
	// SecondServiceCIDR is the range of Services' addresses of the other family.
	// Invalid: there is one family, and Services that require both are refused.
	SecondServiceCIDR netip.Prefix
	// NodePorts is the first and the last node port; {0,0} is upstream's
	// default range.
	NodePorts [2]int
	// Advertise is where the endpoints of the `kubernetes` Service point.
	// Invalid: they are left alone.
	Advertise netip.AddrPort
	// Kubelet answers what the API server asks of kubelets, in process. Nil:
	// kubelets are dialled at their nodes' addresses.
	Kubelet http.Handler
	// Metrics says what a tenant's pods and nodes use (the API metrics.k8s.io). Nil:
	// nothing is known. A host asks its kubelets.
	Metrics metricsapi.MetricsGetter
	// Dial makes the connections of a tenant's control plane: to webhooks,
	// aggregated API servers, and what the proxy subresources lead to. It decides
	// what may be reached. Nil: nothing is; a host dials without it.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// DialIssuer makes the connections to issuers of OpenID Connect tokens, unless
	// their configuration asks for a direct one. Nil: none.
	DialIssuer func(ctx context.Context, network, address string) (net.Conn, error)
	// ValidatePod refuses pods, in addition to upstream's rules. May be nil.
	ValidatePod func(*corev1.Pod) error
	// Judge is asked about objects of custom kinds, Services and claims (v1) that
	// clients write: what they are warned of, or why the object is refused. May be nil.
	Judge func(object runtime.Object) (warnings []string, err error)
	// Terms says what the tenant's plan allows at the moment, and Count how many keys
	// there are in the storage below a prefix. Nil: objects are not limited.
	Terms func() *plan.Terms
	Count func(ctx context.Context, prefix string) (int64, error)
	// StoreBytes is how much of its room the storage uses. Nil: it is not bounded.
	StoreBytes func(context.Context) (int64, error)
	// AuditLog gets an event for each request that Terms says to record, one JSON
	// document a line, one a call. Nil: none is.
	AuditLog io.Writer
	// AuditWebhook is a kubeconfig of where the same events are sent, AuditLabels the
	// annotations that they get there. Empty: they are not.
	AuditWebhook string
	AuditLabels  map[string]string
	// Paths are answered by handlers of the caller's, after authentication,
	// authorization and audit.
	Paths map[string]Path
	// Bootstrapped says that the storage already holds the objects that
	// upstream's start hooks create once per version.
	Bootstrapped bool
	// Template makes an instance whose storage becomes the template of others:
	// it writes nothing that belongs to a single control plane, and runs
	// no controllers.
	Template bool
	// Host, if set, makes the host's control plane.
	Host *HostOptions
	// Ahead is what has been begun for this control plane. Nil: New begins.
	Ahead *Ahead
}

// Path is a handler of a path. Lasts says that its requests are not bounded in time.
type Path struct {
	Handler http.Handler
	Lasts   bool
}

// HostOptions are what only the control plane of the nodes has.
type HostOptions struct {
	// PodCIDR is cut into a range for every node.
	PodCIDR netip.Prefix
	// NodeMaskSize is the prefix length of a node's range; 0 means 24.
	NodeMaskSize int
}

func (o Options) validate() error {
	if o.PKI == nil {
		return errors.New("no certificate authority")
	}
	if o.Endpoint == "" {
		return errors.New("no storage endpoint")
	}
	if !o.ServiceCIDR.IsValid() || o.ServiceCIDR.Masked() != o.ServiceCIDR {
		return fmt.Errorf("service range %q is not a network prefix", o.ServiceCIDR)
	}
	if second := o.SecondServiceCIDR; second != (netip.Prefix{}) && (second.Masked() != second || second.Addr().Is4() == o.ServiceCIDR.Addr().Is4()) {
		return fmt.Errorf("second service range %q is not a network prefix of another family than %q", second, o.ServiceCIDR)
	}
	if n := o.NodePorts; n[0] < 0 || n[1] < n[0] || n[1] > 65535 || (n[0] == 0) != (n[1] == 0) {
		return fmt.Errorf("node ports %d-%d are not a range", n[0], n[1])
	}
	if o.Host != nil && o.Host.PodCIDR.Masked() != o.Host.PodCIDR {
		return fmt.Errorf("pod range %q is not a network prefix", o.Host.PodCIDR)
	}
	return nil
}

// serviceRanges are the ranges of Services' addresses, that of the default family
// first.
func (o Options) serviceRanges() []string {
	ranges := []string{o.ServiceCIDR.String()}
	if o.SecondServiceCIDR.IsValid() {
		ranges = append(ranges, o.SecondServiceCIDR.String())
	}
	return ranges
}

// asNet is a prefix as upstream has it; an invalid one has no address.
func asNet(p netip.Prefix) net.IPNet {
	if !p.IsValid() {
		return net.IPNet{}
	}
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// serviceIP is the address of the `kubernetes` Service.
func (o Options) serviceIP() net.IP { return o.ServiceCIDR.Addr().Next().AsSlice() }

// advertise is the address shown by the API server; an unused documentation
// address (RFC 5737) when there is none, because upstream wants one.
func (o Options) advertise() *net.TCPAddr {
	if !o.Advertise.IsValid() {
		return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443}
	}
	return net.TCPAddrFromAddrPort(o.Advertise)
}
