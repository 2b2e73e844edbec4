package manager_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/baseline"
	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/cell"
	"sublet.dev/tenant-apiserver/frontdoor"
	"sublet.dev/tenant-apiserver/manager"
	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/tenant-apiserver/server"
)

// host is a real host control plane with a front door, a cell and a manager, in
// this process and without nodes.
type host struct {
	t      *testing.T
	dir    string // short: it holds unix sockets
	api    client.Client
	door   netip.AddrPort
	log    *slog.Logger
	cells  *cells
	guests []http.RoundTripper // of the tenants' clients
}

var services = netip.MustParsePrefix("10.96.0.0/12")

// ownAddress returns an address of this machine that an EndpointSlice may hold.
func ownAddress(t *testing.T) netip.Addr {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && p.Addr().IsGlobalUnicast() {
			return p.Addr()
		}
	}
	t.Skip("this machine has no address but loopback, which an EndpointSlice must not hold")
	return netip.Addr{}
}

// The hosts of this process have ports of their own, away from those that other
// programs of this machine may use.
var (
	firstPort = rand.IntN(8000)
	hosts     atomic.Int64
)

func startHost(t *testing.T) *host {
	t.Helper()
	node := ownAddress(t)
	dir, err := os.MkdirTemp("", "mgr")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	authority, err := pki.LoadOrCreate(filepath.Join(dir, "pki"), "host")
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, dir: dir, log: slog.New(slog.DiscardHandler)}
	control, err := server.Start(t.Context(), server.Config{
		Name: "host", StorePath: filepath.Join(dir, "host.db"), PKI: authority, ServiceCIDR: services, SecondServiceCIDR: netip.MustParsePrefix("fd00:96::/108"),
		Host: &server.HostConfig{PodCIDR: netip.MustParsePrefix("10.244.0.0/16")}, Logger: h.log,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := control.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	h.furnish(control.Loopback())
	h.cells = &cells{host: h, stop: map[string]func(){}, seen: map[tenant.ID]cell.Seen{}}
	t.Cleanup(h.cells.stopAll)
	h.startManager(control.Loopback(), node)
	return h
}

func (h *host) furnish(c *rest.Config) {
	h.t.Helper()
	scheme, err := manager.Scheme()
	if err != nil {
		h.t.Fatal(err)
	}
	if h.api, err = client.New(c, client.Options{Scheme: scheme}); err != nil {
		h.t.Fatal(err)
	}
	for _, manifest := range v1alpha1.Manifests() {
		crd := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(manifest, &crd.Object); err != nil {
			h.t.Fatal(err)
		}
		if err := manager.Apply(h.t.Context(), h.api, crd); err != nil {
			h.t.Fatal(err)
		}
	}
	for _, o := range baseline.Host() {
		if err := manager.Apply(h.t.Context(), h.api, o); err != nil {
			h.t.Fatal(err)
		}
	}
	h.eventually("VirtualClusters are served", func() error { return h.api.List(h.t.Context(), &v1alpha1.VirtualClusterList{}) })
	h.eventually("the plans are there", func() error { return manager.EnsurePlans(h.t.Context(), h.api) })
}

// run runs f until the test ends.
func (h *host) run(f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f(ctx); err != nil {
			h.t.Error(err)
		}
	}()
	return func() { cancel(); <-done }
}

func (h *host) tenantDir(id tenant.ID) string { return filepath.Join(h.dir, string(id)) }
func (h *host) socket(id tenant.ID) string    { return filepath.Join(h.dir, id.Short()+".sock") }

func (h *host) startManager(c *rest.Config, node netip.Addr) {
	h.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	h.door = netip.MustParseAddrPort(l.Addr().String())
	door, err := frontdoor.New(frontdoor.Config{Listener: l, Logger: h.log})
	if err != nil {
		h.t.Fatal(err)
	}
	plan := manager.DefaultPlan(services, node)
	plan.APIPorts += firstPort + 100*int(hosts.Add(1))
	m, err := manager.New(manager.Config{
		Host: c, Plan: plan, Domain: "test", Door: door, Public: h.door,
		Cells: h.cells, PerCell: 2,
		Socket: h.socket, Keys: func(id tenant.ID) string { return cell.PKIDir(h.tenantDir(id)) }, Files: func(id tenant.ID) []string { return []string{h.tenantDir(id), h.socket(id)} }, Logger: h.log,
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(h.run(door.Run))
	h.t.Cleanup(h.run(m.Run))
}

func (h *host) eventually(what string, f func() error) {
	h.t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(h.t.Context(), 20*time.Millisecond, 5*time.Minute, true, func(context.Context) (bool, error) {
		last = f()
		return last == nil, nil
	})
	if err != nil {
		h.t.Fatalf("%s: %v: %v", what, err, last)
	}
}

func (h *host) create(name string) *v1alpha1.VirtualCluster {
	h.t.Helper()
	vc := &v1alpha1.VirtualCluster{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if err := h.api.Create(h.t.Context(), vc); err != nil {
		h.t.Fatal(err)
	}
	return h.awaitPhase(name, v1alpha1.PhaseReady)
}

func (h *host) awaitPhase(name string, phase v1alpha1.Phase) *v1alpha1.VirtualCluster {
	h.t.Helper()
	vc := &v1alpha1.VirtualCluster{}
	h.eventually(name+" is "+string(phase), func() error {
		if err := h.api.Get(h.t.Context(), client.ObjectKey{Name: name}, vc); err != nil {
			return err
		}
		if vc.Status.Phase != phase {
			return errors.New("it is " + string(vc.Status.Phase))
		}
		return nil
	})
	return vc
}

// tenantAPI returns a client of the tenant's API, through the front door.
func (h *host) tenantAPI(vc *v1alpha1.VirtualCluster) kubernetes.Interface {
	h.t.Helper()
	authority, err := pki.LoadOrCreate(cell.PKIDir(h.tenantDir(tenant.ID(vc.UID))), "")
	if err != nil {
		h.t.Fatal(err)
	}
	data, err := authority.Kubeconfig(pki.KubeconfigOptions{Server: vc.Status.Endpoint, TLSServerName: vc.Status.ServerName, User: "admin", Groups: []string{"system:masters"}})
	if err != nil {
		h.t.Fatal(err)
	}
	c, err := clientcmd.RESTConfigFromKubeConfig(data)
	if err != nil {
		h.t.Fatal(err)
	}
	transport, err := rest.HTTPClientFor(c)
	if err != nil {
		h.t.Fatal(err)
	}
	h.guests = append(h.guests, transport.Transport)
	api, err := kubernetes.NewForConfigAndClient(c, transport)
	if err != nil {
		h.t.Fatal(err)
	}
	return api
}

func TestManager(t *testing.T) {
	t.Parallel()
	h := startHost(t)

	t.Run("names that no tenant can have are refused by the API", func(t *testing.T) {
		for _, name := range []string{"kube-system", "sublet-x", "a.b", strings.Repeat("a", 64)} {
			err := h.api.Create(t.Context(), &v1alpha1.VirtualCluster{ObjectMeta: metav1.ObjectMeta{Name: name}})
			if !apierrors.IsInvalid(err) {
				t.Errorf("create %s: %v", name, err)
			}
		}
	})

	t.Run("what a plan cannot say is refused by the API", func(t *testing.T) { h.planValidation(t) })

	a, b := h.create("a"), h.create("b")

	t.Run("a changed plan takes effect while its tenants run", func(t *testing.T) { h.changedPlan(t, a) })

	t.Run("tenants have addresses of their own", func(t *testing.T) {
		if a.Status.ServiceCIDR == b.Status.ServiceCIDR || a.Status.APIPort == b.Status.APIPort || a.Status.Namespace == b.Status.Namespace {
			t.Errorf("%+v\n%+v", a.Status, b.Status)
		}
		var s corev1.Service
		if err := h.api.Get(t.Context(), client.ObjectKey{Namespace: a.Status.Namespace, Name: "kubernetes"}, &s); err != nil {
			t.Fatal(err)
		}
		if want := tenant.APIAddress(netip.MustParsePrefix(a.Status.ServiceCIDR)).String(); s.Spec.ClusterIP != want {
			t.Errorf("the API's Service has the address %s, want %s", s.Spec.ClusterIP, want)
		}
	})

	t.Run("tenants have a part of the host's second range", func(t *testing.T) { h.secondRange(t, a, b) })

	t.Run("each is reached through the front door", func(t *testing.T) {
		for _, vc := range []*v1alpha1.VirtualCluster{a, b} {
			if _, err := h.tenantAPI(vc).CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "mine-" + vc.Name}}, metav1.CreateOptions{}); err != nil {
				t.Error(err)
			}
		}
		// The key of one opens nothing at the other.
		crossed := a.DeepCopy()
		crossed.Status.ServerName = b.Status.ServerName
		if _, err := h.tenantAPI(crossed).CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); err == nil {
			t.Error("the kubeconfig of a works at b")
		}
	})

	t.Run("a tenant is not given another's store", func(t *testing.T) { h.swappedStores(t, a, b) })

	t.Run("a third tenant has another cell, which ends with it", func(t *testing.T) { h.secondCell(t, a, b) })

	t.Run("a restarted cell gets its tenants again, but for the damaged one", func(t *testing.T) {
		h.cells.kill("cell-0")
		damage(t, filepath.Join(h.tenantDir(tenant.ID(b.UID)), "store.db"))
		h.cells.run("cell-0")
		h.eventually("a answers", func() error {
			_, err := h.tenantAPI(a).CoreV1().ConfigMaps("default").Get(t.Context(), "mine-a", metav1.GetOptions{})
			return err
		})
		h.awaitPhase("a", v1alpha1.PhaseReady)
		failed := h.awaitPhase("b", v1alpha1.PhaseFailed)
		c := meta.FindStatusCondition(failed.Status.Conditions, v1alpha1.ConditionReady)
		if c == nil || c.Reason != cell.ReasonStoreForeign && c.Reason != cell.ReasonStoreCorrupt || !strings.Contains(c.Message, "store.db") {
			t.Errorf("condition %+v", c)
		}
	})

	h.leavesNothing(t, a, b)
}

// leavesNothing deletes tenants and wants nothing to be left of them.
func (h *host) leavesNothing(t *testing.T, vcs ...*v1alpha1.VirtualCluster) {
	t.Run("nothing is left of a deleted tenant", func(t *testing.T) {
		h.remove(vcs...)
		for _, vc := range vcs {
			h.nothingLeft(t, vc)
		}
	})
}

// remove deletes tenants and waits until they are gone.
func (h *host) remove(vcs ...*v1alpha1.VirtualCluster) {
	h.t.Helper()
	for _, vc := range vcs {
		if err := h.api.Delete(h.t.Context(), vc); err != nil {
			h.t.Fatal(err)
		}
	}
	for _, vc := range vcs {
		h.eventually(vc.Name+" is gone", func() error {
			err := h.api.Get(h.t.Context(), client.ObjectKeyFromObject(vc), &v1alpha1.VirtualCluster{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return errors.Join(err, errors.New("it is there"))
		})
	}
}

func (h *host) nothingLeft(t *testing.T, vc *v1alpha1.VirtualCluster) {
	t.Helper()
	if err := h.api.Get(t.Context(), client.ObjectKey{Name: vc.Status.Namespace}, &corev1.Namespace{}); !apierrors.IsNotFound(err) {
		t.Errorf("the host namespace: %v", err)
	}
	marked := client.MatchingLabels{tenant.LabelTenant: string(vc.UID)}
	for _, list := range []client.ObjectList{&rbacv1.ClusterRoleList{}, &rbacv1.ClusterRoleBindingList{}, &corev1.ServiceList{}} {
		if err := h.api.List(t.Context(), list, marked); err != nil || meta.LenList(list) > 0 {
			t.Errorf("%T: %v, %v", list, list, err)
		}
	}
	for _, path := range []string{h.tenantDir(tenant.ID(vc.UID)), h.socket(tenant.ID(vc.UID))} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func damage(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, 1<<15), 0); err != nil {
		t.Fatal(err)
	}
}
