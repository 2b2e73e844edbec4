package server

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"sublet.dev/tenant-apiserver/dialer"
	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/tenant-apiserver/plan"
)

// The pod network of the tests: two pods, one of the tenant and one of another's,
// and where on this machine they are.
const (
	ownPod, otherPod   = "10.244.1.7", "10.244.1.8"
	ownHost, otherHost = "127.0.0.2", "127.0.0.3"
)

// podNetwork says of the tenant's pod that it is one, and of nothing else.
type podNetwork struct{}

func (podNetwork) At(_ context.Context, addr netip.Addr) (dialer.Place, error) {
	if addr.String() == ownHost {
		return dialer.Place{Pod: "uid-of-host-pod"}, nil
	}
	return dialer.Place{}, nil
}

// outside is a tenant with a dialer, its pod, and somebody else's.
type outside struct {
	*member
	k          kubernetes.Interface
	ns         string
	own, other *backend
}

// newOutside starts them; the two servers answer with handler.
func newOutside(t *testing.T, name string, handler http.Handler) *outside {
	t.Helper()
	never := dialer.Never()
	for i, p := range never {
		if p.Contains(netip.MustParseAddr(ownHost)) {
			never = append(never[:i], never[i+1:]...) // where the tests' pods are
			break
		}
	}
	d, err := dialer.New(dialer.Config{Network: podNetwork{}, Never: never, Public: func() bool { return true }})
	if err != nil {
		t.Fatal(err)
	}
	config := tenantConfig(t.TempDir(), name, 3)
	config.GoldenDir = w.golden
	config.Terms = plan.Terms{Plan: "test", Limits: plan.Limits{Size: 1 << 20, Objects: 1000}} // objects of all groups are measured
	config.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		return d.DialContext(ctx, network, strings.NewReplacer(ownPod+":", ownHost+":", otherPod+":", otherHost+":").Replace(address))
	}
	m, err := startMember(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.stop(); err != nil {
			t.Error(err)
		}
	})
	o := &outside{member: m, k: client(t, m.admin(t))}
	o.ns = namespace(t, o.k)
	o.own = newBackend(t, ownHost, handler, "app."+o.ns+".svc")
	o.other = newBackend(t, otherHost, handler, "app."+o.ns+".svc")
	return o
}

// backend is an HTTPS server at an address of this machine.
type backend struct {
	*httptest.Server
	port  int32
	ca    []byte
	asked atomic.Int32
}

func newBackend(t *testing.T, host string, handler http.Handler, names ...string) *backend {
	t.Helper()
	authority, err := pki.LoadOrCreate(filepath.Join(t.TempDir(), "pki"), "backend")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := authority.IssueServing(names, []netip.Addr{netip.MustParseAddr(host)}, 0)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{ca: authority.CAPEM(), port: int32(l.Addr().(*net.TCPAddr).Port)}
	b.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		b.asked.Add(1)
		handler.ServeHTTP(rw, req)
	}))
	b.Listener = l
	b.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12}
	b.StartTLS()
	t.Cleanup(b.Close)
	return b
}

// expose makes the Service app, whose endpoint is the tenant's pod as long as the
// tenant does not say something else.
func (o *outside) expose(t *testing.T) {
	t.Helper()
	port := corev1.ServicePort{Name: "https", Port: 443, TargetPort: intstr.FromInt32(o.own.port)}
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "app"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{port}}}
	if _, err := o.k.CoreV1().Services(o.ns).Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: o.ns, Name: "app-1", Labels: map[string]string{discoveryv1.LabelServiceName: "app"}},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	setEndpoint(slice, ownPod, o.own.port)
	if _, err := o.k.DiscoveryV1().EndpointSlices(o.ns).Create(t.Context(), slice, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// lead makes the Service's endpoint another address, as a tenant can.
func (o *outside) lead(t *testing.T, address string, port int32) {
	t.Helper()
	slices := o.k.DiscoveryV1().EndpointSlices(o.ns)
	slice, err := slices.Get(t.Context(), "app-1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	setEndpoint(slice, address, port)
	if _, err := slices.Update(t.Context(), slice, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	o.own.CloseClientConnections() // those that stand go on to the tenant's own pod
}

func setEndpoint(slice *discoveryv1.EndpointSlice, address string, port int32) {
	slice.Endpoints = []discoveryv1.Endpoint{{
		Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)},
		TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: slice.Namespace, Name: "p"}, // the proxy insists on it
	}}
	slice.Ports = []discoveryv1.EndpointPort{{Name: ptr.To("https"), Port: &port}}
}

// untouched fails the test if the other tenant's pod was spoken to, and wants its
// counterpart to have been.
func (o *outside) untouched(t *testing.T) {
	t.Helper()
	if n := o.other.asked.Load(); n != 0 {
		t.Errorf("the pod of another tenant got %d requests", n)
	}
	if o.own.asked.Load() == 0 {
		t.Error("the tenant's own pod got no request: the test shows nothing")
	}
}

// hostAddresses are what a tenant writes to reach the provider.
func hostAddresses() map[string]string {
	return map[string]string{
		"the host's API":              w.host.addr,
		"the host's API, mapped":      strings.Replace(w.host.addr, "127.0.0.1", "[::ffff:127.0.0.1]", 1),
		"metadata":                    "169.254.169.254:443",
		"metadata, translated":        "[64:ff9b::a9fe:a9fe]:443",
		"a private network":           "10.0.0.1:443",
		"the host's API as a Service": "10.96.0.1:443",
		"another tenant's pod":        otherPod + ":443",
		"a name of this machine":      "localhost:443",
	}
}
