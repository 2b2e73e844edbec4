package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	metricsapi "sigs.k8s.io/metrics-server/pkg/api"

	"sublet.dev/tenant-apiserver/etcdclient"
	"sublet.dev/tenant-apiserver/internal/kube"
	"sublet.dev/tenant-apiserver/keyring"
	"sublet.dev/tenant-apiserver/measure"
	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/tenant-apiserver/plan"
	"sublet.dev/tenant-apiserver/store"
	"sublet.dev/tenant-apiserver/turns"
)

// Config describes a control plane.
type Config struct {
	// Name is "host" or the tenant's name, for logs.
	Name string
	// ID is the tenant's, unique in all time. It is stamped into a store that
	// has none, and a store that has another is refused with store.ErrForeign.
	// Empty: neither. A host needs none.
	ID string
	// StorePath is the bbolt file with all state. It is made when absent.
	StorePath string
	// Etcd, if set, is where all state is instead of in a file.
	Etcd *etcdclient.EtcdConfig
	// Existing says that the control plane has run before: an etcd that has nothing
	// of it is refused with ErrStoreMissing.
	Existing bool
	// KeyFile has the keys that the store's values are encrypted with; its directory
	// exists. The first key is made for a store that has none. Empty: values are
	// stored as they are, and a store that is encrypted is refused.
	KeyFile string
	// KMS, if set, encrypts the keys in KeyFile.
	KMS keyring.KMS
	// GoldenDir keeps the golden objects, which a tenant's new store starts
	// with. Empty: new stores are bootstrapped the slow way.
	GoldenDir string
	// PKI is this control plane's own authority.
	PKI *pki.Authority
	// ServiceCIDR is the range of ClusterIPs; its first address is the
	// `kubernetes` Service.
	ServiceCIDR netip.Prefix
	// SecondServiceCIDR is a range of the other family, for Services that have
	// addresses of both. One may be added to a control plane that has run before. The
	// zero value: there is one family.
	SecondServiceCIDR netip.Prefix
	// NodePorts is the first and last node port; {0,0} is upstream's default.
	NodePorts [2]int
	// Advertise is where the endpoints of the `kubernetes` Service point. The
	// zero value leaves them alone.
	Advertise netip.AddrPort
	// ServingNames and ServingIPs are what clients may call the server; names
	// inside the cluster, the service address and localhost are added.
	ServingNames []string
	ServingIPs   []netip.Addr
	// Kubelet answers the kubelet API for logs, exec, attach and port-forward
	// in process, whatever the node's address is. Nil: a host dials its
	// kubelets, a tenant's requests fail.
	Kubelet http.Handler
	// Metrics says what a tenant's pods and nodes use, for `kubectl top` and the
	// autoscaler (the API metrics.k8s.io). Nil: nothing is known. A host asks its
	// kubelets.
	Metrics metricsapi.MetricsGetter
	// Dial makes a tenant's connections to webhooks, aggregated API servers and what
	// the proxy subresources lead to, and refuses the others (package dialer). Nil:
	// a tenant's control plane makes none. A host's ignores it.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// DialIssuer makes a tenant's connections to the issuers of SetAuthentication that
	// do not ask for a direct one. Nil: none is made.
	DialIssuer func(ctx context.Context, network, address string) (net.Conn, error)
	// ValidatePod refuses pods of a tenant at creation, at updates of their
	// spec, and when ephemeral containers are added. The user sees the
	// error's text, as 403.
	ValidatePod func(*corev1.Pod) error
	// Judge is asked about objects of custom kinds, Services and claims of a tenant
	// that clients write, unless an update changes metadata or status alone: what they
	// are warned of, or why the object is refused, as 403. Nil: nobody is asked.
	Judge func(object runtime.Object) (warnings []string, err error)
	// Terms is what the tenant's plan gives it; SetTerms changes it. The zero value
	// has no limits.
	Terms plan.Terms
	// AuditLog is the file that requests are recorded in, as Terms says; those before
	// it are beside it (AuditPath). Empty: none are.
	AuditLog string
	// AuditWebhook is a kubeconfig that says where what is recorded is sent besides,
	// in batches. Empty: nowhere.
	AuditWebhook string
	// TenantMetrics answers TenantMetricsURL of a host. Nil: there is no such path.
	TenantMetrics http.Handler
	// Carried is what the control plane has left whose place this one takes.
	Carried Carried
	// Host makes the control plane of the nodes instead of a tenant's.
	Host *HostConfig
	// Logger gets the life of the server. Nil: slog.Default().
	Logger *slog.Logger

	terms *atomic.Pointer[plan.Terms] // the present ones, once started
	audit *auditFile                  // nil: none
	meter *measure.Meter              // nil: none

	turns     *turns.Turns // nil: those of the process
	turn      time.Duration
	throwAway bool         // the store need not survive the machine
	rotation  rotationPace // tests cannot wait as long
}

// currentTerms returns what the plan allows now.
func (c Config) currentTerms() *plan.Terms {
	if c.terms == nil { // a template, which nobody uses
		return &c.Terms
	}
	return c.terms.Load()
}

// flow is where requests wait for their turns. A host is alone in its process.
func (c Config) flow() *turns.Flow {
	switch {
	case c.Host != nil:
		return nil
	case c.turns != nil:
		return c.turns.Flow()
	default:
		return processors().Flow()
	}
}

// HostConfig is what only the host's control plane has: the scheduler, the node
// controllers, the Node authorizer with NodeRestriction, and a client
// certificate for kubelets.
type HostConfig struct {
	// PodCIDR is the range that nodes' pod ranges are cut from.
	PodCIDR netip.Prefix
	// NodeMaskSize is the prefix length of a node's pod range; 0 means 24.
	NodeMaskSize int
}

func (c Config) validate() error {
	switch {
	case c.Name == "":
		return errors.New("server: Config.Name is empty")
	case (c.StorePath == "") == (c.Etcd == nil):
		return errors.New("server: one of Config.StorePath and Config.Etcd must be set")
	case c.Etcd != nil && c.ID == "":
		return errors.New("server: Config.ID is empty; it says whose part of an etcd it is")
	case c.PKI == nil:
		return errors.New("server: Config.PKI is nil")
	case !c.ServiceCIDR.IsValid():
		return errors.New("server: Config.ServiceCIDR is not set")
	case c.Host != nil && !c.Host.PodCIDR.IsValid():
		return errors.New("server: Config.Host.PodCIDR is not set")
	case c.Host != nil && c.ValidatePod != nil:
		return errors.New("server: Config.ValidatePod is for tenants, not for the host")
	}
	return nil
}

// hostID is stamped into the host's store. Tenants' IDs are UUIDs, so neither
// is ever taken for the other.
const hostID = "host"

func (c Config) storeOptions() store.Options {
	if c.Host != nil {
		return store.Options{ID: hostID, Ballast: true}
	}
	return store.Options{ID: c.ID, NoSync: c.throwAway, Ballast: !c.throwAway, QuotaBytes: storeLimit(c.currentTerms())}
}

// storeLimit is where the store itself takes nothing more. The plan's quota is
// below: what tenants send is refused there, with words that say which plan,
// while the control plane's own writes go on.
func storeLimit(t *plan.Terms) int64 { return t.StoreQuota + t.StoreQuota/8 }

func (c Config) options(st *storage, bootstrapped bool) kube.Options {
	o := kube.Options{
		Name:              c.Name,
		Endpoint:          st.endpoint,
		PKI:               c.PKI,
		ServiceCIDR:       c.ServiceCIDR,
		SecondServiceCIDR: c.SecondServiceCIDR,
		NodePorts:         c.NodePorts,
		Advertise:         c.Advertise,
		Kubelet:           c.Kubelet,
		Metrics:           c.Metrics,
		Dial:              c.Dial,
		DialIssuer:        c.DialIssuer,
		ValidatePod:       c.ValidatePod,
		Judge:             c.Judge,
		Bootstrapped:      bootstrapped,
	}
	if st.ring != nil {
		o.Transformer = pacedValues{st.ring}
	}
	o.Paths = c.metricsPaths()
	if c.Host == nil {
		o.Terms, o.Count = c.currentTerms, st.count
		if st.file != nil {
			o.StoreBytes = st.bytes
		}
		if c.audit != nil {
			o.AuditLog, o.AuditWebhook = c.audit, c.AuditWebhook
			o.AuditLabels = map[string]string{kube.AuditTenant: c.Name, kube.AuditTenantID: c.ID}
			o.Paths[AuditURL] = kube.Path{Handler: &auditReader{path: c.AuditLog, log: c.logger()}, Lasts: true}
		}
	} else {
		o.Host = &kube.HostOptions{PodCIDR: c.Host.PodCIDR, NodeMaskSize: c.Host.NodeMaskSize}
	}
	return o
}

// servingNames are the names and addresses of the serving certificate.
func (c Config) servingNames() ([]string, []netip.Addr) {
	names := append([]string{}, c.ServingNames...)
	names = append(names, "kubernetes", "kubernetes.default", "kubernetes.default.svc",
		"kubernetes.default.svc.cluster.local", "localhost")
	ips := append([]netip.Addr{}, c.ServingIPs...)
	ips = append(ips, c.ServiceCIDR.Addr().Next(), netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback())
	if c.Advertise.IsValid() {
		ips = append(ips, c.Advertise.Addr())
	}
	return names, ips
}

func (c Config) logger() *slog.Logger {
	if c.Logger == nil {
		return slog.Default()
	}
	return c.Logger
}

func wrap(name string, err error) error { return fmt.Errorf("control plane %s: %w", name, err) }
