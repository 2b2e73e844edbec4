package manager_test

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	metricsapi "sigs.k8s.io/metrics-server/pkg/api"
	metricsstorage "sigs.k8s.io/metrics-server/pkg/storage"
	"sublet.dev/api/v1alpha1"

	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/cell"
	"sublet.dev/tenant-apiserver/dialer"
	"sublet.dev/tenant-apiserver/manager"
	"sublet.dev/tenant-apiserver/plan"
)

// idle is a companion with nothing to do: there are no nodes.
type idle struct {
	http.Handler
	seen func() cell.Seen
}

func (idle) Run(ctx context.Context) error { <-ctx.Done(); return nil }
func (i idle) Kubelet() http.Handler       { return i.Handler }
func (i idle) Rest() (cell.Rest, bool)     { return cell.Rest{Seen: i.seen()}, true }
func (idle) Metrics(context.Context) metricsapi.MetricsGetter {
	return metricsstorage.NewStorage(0) // has none
}
func (idle) At(context.Context, netip.Addr) (dialer.Place, error) {
	return dialer.Place{}, nil
}

// cells are real cells in this process instead of processes of their own. It is the
// manager's Cells.
type cells struct {
	host *host
	mu   sync.Mutex
	stop map[string]func() // guarded by mu: of those that run

	saw  sync.Mutex
	seen map[tenant.ID]cell.Seen // guarded by saw: what the companions say they have seen
}

func (c *cells) seenOf(id tenant.ID) cell.Seen {
	c.saw.Lock()
	defer c.saw.Unlock()
	return c.seen[id]
}

func (c *cells) see(id tenant.ID, s cell.Seen) {
	c.saw.Lock()
	defer c.saw.Unlock()
	c.seen[id] = s
}

// Start implements manager.Cells.
func (c *cells) Start(_ context.Context, name string) (manager.Cell, error) {
	c.run(name)
	return cell.NewClient(c.socket(name)), nil
}

// Stop implements manager.Cells.
func (c *cells) Stop(_ context.Context, name string) error {
	c.kill(name)
	return nil
}

func (c *cells) socket(name string) string { return filepath.Join(c.host.dir, name+".sock") }

func (c *cells) running() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.stop))
}

func (c *cells) kill(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if stop := c.stop[name]; stop != nil {
		stop()
		delete(c.stop, name)
	}
}

func (c *cells) stopAll() {
	for _, name := range c.running() {
		c.kill(name)
	}
}

// run starts a cell unless it runs.
func (c *cells) run(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stop[name] != nil {
		return
	}
	h := c.host
	hosted, err := cell.New(cell.Config{
		Name: name, Dir: h.tenantDir, GoldenDir: filepath.Join(h.dir, "golden"), Socket: h.socket,
		Companion: func(t tenant.Tenant, _ *rest.Config, _ informers.SharedInformerFactory) (cell.Companion, error) {
			return idle{http.NotFoundHandler(), func() cell.Seen { return c.seenOf(t.ID) }}, nil
		},
		ValidatePod: func(tenant.Tenant, *corev1.Pod, plan.Terms) error { return nil },
		Logger:      h.log,
	})
	if err != nil {
		h.t.Error(err)
		return
	}
	_ = os.Remove(c.socket(name)) // of a cell that was stopped before
	l, err := net.Listen("unix", c.socket(name))
	if err != nil {
		h.t.Error(err)
		return
	}
	control := &http.Server{Handler: hosted.Handler()}
	stopControl := h.run(func(context.Context) error {
		if err := control.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	stopCell := h.run(hosted.Run)
	c.stop[name] = func() {
		_ = control.Close()
		stopControl()
		stopCell()
	}
}

// secondCell wants a tenant that finds the first cell full to get another cell,
// and that cell to end with it. It leaves a and b as they were.
func (h *host) secondCell(t *testing.T, a, b *v1alpha1.VirtualCluster) {
	c := h.create("c")
	for vc, want := range map[*v1alpha1.VirtualCluster]string{a: "cell-0", b: "cell-0", c: "cell-1"} {
		if vc.Status.Cell != want {
			t.Errorf("%s is in %s, want %s", vc.Name, vc.Status.Cell, want)
		}
	}
	if _, err := h.tenantAPI(c).CoreV1().Namespaces().Get(t.Context(), "default", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	h.cells.kill("cell-0") // costs only its own
	if _, err := h.tenantAPI(c).CoreV1().Namespaces().Get(t.Context(), "default", metav1.GetOptions{}); err != nil {
		t.Errorf("without the other cell: %v", err)
	}
	h.cells.run("cell-0")
	h.ownCell(t, c)
	h.remove(c)
	if now := h.cells.running(); !slices.Equal(now, []string{"cell-0"}) {
		t.Errorf("cells that run: %v", now)
	}
	for _, vc := range []*v1alpha1.VirtualCluster{a, b} {
		h.eventually(vc.Name+" answers", func() error {
			_, err := h.tenantAPI(vc).CoreV1().ConfigMaps("default").Get(t.Context(), "mine-"+vc.Name, metav1.GetOptions{})
			return err
		})
	}
}

// ownCell gives c a plan with a cell of its own while another tenant shares its cell,
// and wants it to be moved with all it has.
func (h *host) ownCell(t *testing.T, c *v1alpha1.VirtualCluster) {
	d := h.create("d")
	if d.Status.Cell != c.Status.Cell {
		t.Fatalf("d is in %s", d.Status.Cell)
	}
	if _, err := h.tenantAPI(c).CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "mine-c"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	h.eventually("the tenant has the plan", func() error {
		if err := h.api.Get(t.Context(), client.ObjectKeyFromObject(c), c); err != nil {
			return err
		}
		c.Spec.Plan = "large"
		return h.api.Update(t.Context(), c)
	})
	h.eventually("c has a cell of its own", func() error {
		if err := h.api.Get(t.Context(), client.ObjectKeyFromObject(c), c); err != nil {
			return err
		}
		if c.Status.Cell == d.Status.Cell {
			return errors.New("it is in " + c.Status.Cell)
		}
		_, err := h.tenantAPI(c).CoreV1().ConfigMaps("default").Get(t.Context(), "mine-c", metav1.GetOptions{})
		return err
	})
	if now := h.cells.running(); !slices.Equal(now, []string{"cell-0", "cell-1", "cell-2"}) {
		t.Errorf("cells that run: %v", now)
	}
	h.remove(d)
}
