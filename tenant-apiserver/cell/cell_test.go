package cell_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/rest"

	metricsapi "sigs.k8s.io/metrics-server/pkg/api"
	metricsstorage "sigs.k8s.io/metrics-server/pkg/storage"

	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/cell"
	"sublet.dev/tenant-apiserver/dialer"
	"sublet.dev/tenant-apiserver/plan"
)

// idle is a companion with nothing to do.
type idle struct{ http.Handler }

func (idle) Run(ctx context.Context) error { <-ctx.Done(); return nil }
func (i idle) Kubelet() http.Handler       { return i.Handler }
func (idle) Rest() (cell.Rest, bool)       { return cell.Rest{}, true }
func (idle) Metrics(context.Context) metricsapi.MetricsGetter {
	return metricsstorage.NewStorage(0) // has none
}
func (idle) At(context.Context, netip.Addr) (dialer.Place, error) {
	return dialer.Place{}, nil
}

type companionFunc = func(tenant.Tenant, *rest.Config, informers.SharedInformerFactory) (cell.Companion, error)

func quiet(tenant.Tenant, *rest.Config, informers.SharedInformerFactory) (cell.Companion, error) {
	return idle{http.NotFoundHandler()}, nil
}

// start runs a cell that serves its API on a unix socket.
func start(t *testing.T, companion companionFunc) (c *cell.Cell, client *cell.Client, dir string) {
	t.Helper()
	return startWith(t, companion, func(*cell.Config) {})
}

// startWith is start with a changed configuration.
func startWith(t *testing.T, companion companionFunc, change func(*cell.Config)) (c *cell.Cell, client *cell.Client, dir string) {
	t.Helper()
	dir = scratch(t)
	c, client = startIn(t, dir, companion, change)
	return c, client, dir
}

// scratch is a directory with a short path: it holds unix sockets.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cell")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func socket(dir string, id tenant.ID) string { return filepath.Join(dir, id.Short()+".sock") }

// startIn runs a cell on a directory, which another may have used before.
func startIn(t *testing.T, dir string, companion companionFunc, change func(*cell.Config)) (c *cell.Cell, client *cell.Client) {
	t.Helper()
	config := cell.Config{
		Name: "test", Dir: func(id tenant.ID) string { return filepath.Join(dir, string(id)) }, GoldenDir: golden,
		Socket:      func(id tenant.ID) string { return socket(dir, id) },
		Companion:   companion,
		ValidatePod: func(tenant.Tenant, *corev1.Pod, plan.Terms) error { return nil },
		Logger:      slog.New(slog.DiscardHandler),
	}
	change(&config)
	c, err := cell.New(config)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "api.sock")
	_ = os.Remove(path) // of an earlier cell
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	api := httptest.NewUnstartedServer(c.Handler())
	_ = api.Listener.Close() // replaced by ours
	api.Listener = l
	api.Start()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	client = cell.NewClient(l.Addr().String())
	t.Cleanup(func() {
		client.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		api.Close()
	})
	return c, client
}

func tenantOf(id, name string) cell.Tenant {
	return cell.Tenant{
		Tenant: tenant.Tenant{
			ID: tenant.ID(id), Name: name, HostNamespace: "sublet-" + name, Sandbox: tenant.GVisor,
			ServiceCIDR: netip.MustParsePrefix("10.96.4.0/22"),
		},
		ServerName: name + ".test", InCluster: netip.MustParseAddrPort("192.0.2.1:20001"),
	}
}

// await waits until the tenant's status is as wanted.
func await(t *testing.T, client *cell.Client, id tenant.ID, want func(cell.Status) bool) cell.Status {
	t.Helper()
	var revision uint64
	ctx := bounded(t)
	for {
		s, err := client.Snapshot(ctx, revision)
		if err != nil {
			t.Fatal(err)
		}
		for _, status := range s.Tenants {
			if status.ID == id && want(status) {
				return status
			}
		}
		revision = s.Revision
	}
}

func TestCell(t *testing.T) {
	t.Parallel()
	c, client, dir := start(t, quiet)
	a := tenantOf("uid-a", "a")
	s, err := client.Put(t.Context(), a)
	if err != nil || s.Phase != cell.Ready {
		t.Fatalf("Put = %+v, %v", s, err)
	}
	before, err := client.Snapshot(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}

	t.Run("putting the same again changes nothing", func(t *testing.T) {
		if s, err := client.Put(t.Context(), a); err != nil || s.Phase != cell.Ready {
			t.Fatalf("Put = %+v, %v", s, err)
		}
		if now := c.Snapshot(t.Context(), 0); now.Revision != before.Revision {
			t.Errorf("revision %d became %d", before.Revision, now.Revision)
		}
	})

	t.Run("other values restart the tenant", func(t *testing.T) {
		changed := a
		changed.ServerName = "other.test"
		if s, err := client.Put(t.Context(), changed); err != nil || s.Phase != cell.Ready {
			t.Fatalf("Put = %+v, %v", s, err)
		}
		if now := c.Snapshot(t.Context(), 0); now.Revision == before.Revision {
			t.Error("nothing happened")
		}
	})

	t.Run("a tenant that lost its store is not given an empty one", func(t *testing.T) {
		lost := tenantOf("uid-lost", "lost")
		if s, err := client.Put(t.Context(), lost); err != nil || s.Phase != cell.Ready {
			t.Fatalf("Put = %+v, %v", s, err)
		}
		if err := client.Delete(t.Context(), "uid-lost"); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "uid-lost", "store.db")
		if err := os.Rename(path, path+".backup"); err != nil {
			t.Fatal(err)
		}
		s, err := client.Put(t.Context(), lost)
		if err != nil || s.Phase != cell.Failed || s.Reason != cell.ReasonStoreMissing || !strings.Contains(s.Message, "put it back") {
			t.Errorf("Put = %+v, %v", s, err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Error("it has a store")
		}
		if err := os.Rename(path+".backup", path); err != nil {
			t.Fatal(err)
		}
		await(t, client, "uid-lost", func(s cell.Status) bool { return s.Phase == cell.Ready })
		if err := client.Delete(t.Context(), "uid-lost"); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("a tenant with damaged keys fails alone", func(t *testing.T) {
		b := tenantOf("uid-b", "b")
		if err := os.MkdirAll(filepath.Join(dir, "uid-b", "pki"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "uid-b", "pki", "ca.key"), []byte("junk"), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := client.Put(t.Context(), b)
		if err != nil || s.Phase != cell.Failed || s.Reason != cell.ReasonKeysCorrupt || !strings.Contains(s.Message, "ca.key") {
			t.Errorf("Put = %+v, %v", s, err)
		}
		if s, ok := c.Get("uid-a"); !ok || s.Phase != cell.Ready {
			t.Errorf("its neighbour is %+v", s)
		}
	})

	t.Run("delete", func(t *testing.T) {
		for range 2 {
			for _, id := range []tenant.ID{"uid-a", "uid-b"} {
				if err := client.Delete(t.Context(), id); err != nil {
					t.Fatal(err)
				}
			}
		}
		if s := c.Snapshot(t.Context(), 0); len(s.Tenants) != 0 {
			t.Errorf("left: %+v", s.Tenants)
		}
		if _, err := os.Stat(filepath.Join(dir, "uid-a", "store.db")); err != nil {
			t.Errorf("the cell removed what lasts: %v", err)
		}
	})
}

// A companion that fails is started again, and the API goes on meanwhile.
func TestCompanionFails(t *testing.T) {
	t.Parallel()
	var made atomic.Int32
	_, client, _ := start(t, func(tn tenant.Tenant, api *rest.Config, _ informers.SharedInformerFactory) (cell.Companion, error) {
		if made.Add(1) == 1 {
			return nil, errors.New("the first one fails")
		}
		return quiet(tn, api, nil)
	})
	a := tenantOf("uid-a", "a")
	s, err := client.Put(t.Context(), a)
	if err != nil || s.Phase != cell.Degraded && s.Phase != cell.Ready {
		t.Fatalf("Put = %+v, %v", s, err)
	}
	await(t, client, "uid-a", func(s cell.Status) bool { return s.Phase == cell.Ready })
	if made.Load() != 2 {
		t.Errorf("%d companions were made", made.Load())
	}
}

func TestPutRefuses(t *testing.T) {
	t.Parallel()
	_, client, _ := start(t, quiet)
	for name, change := range map[string]func(*cell.Tenant){
		"no server name":   func(c *cell.Tenant) { c.ServerName = "" },
		"reserved name":    func(c *cell.Tenant) { c.Name = "host" },
		"unknown sandbox":  func(c *cell.Tenant) { c.Sandbox = "docker" },
		"no service range": func(c *cell.Tenant) { c.ServiceCIDR = netip.Prefix{} },
		"no address":       func(c *cell.Tenant) { c.InCluster = netip.AddrPort{} },
	} {
		x := tenantOf("uid-x", "x")
		change(&x)
		if _, err := client.Put(t.Context(), x); err == nil || !strings.Contains(err.Error(), "422") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestResume: a process gets the tenants of another one back, all at once; who was put
// meanwhile stays as he is, and one that is not well refuses the list.
func TestResume(t *testing.T) {
	t.Parallel()
	_, client, dir := start(t, quiet)
	a, b := sleeper("uid-a", "a"), sleeper("uid-b", "b")
	b.ServiceCIDR = netip.MustParsePrefix("10.96.8.0/22")
	put(t, client, b)
	older, bad := b, b
	older.ServerName, bad.ID, bad.ServerName = "older.test", "uid-bad", ""
	if err := client.Resume(t.Context(), []cell.Tenant{a, bad}); err == nil || !strings.Contains(err.Error(), "422") {
		t.Errorf("a tenant without a server name: %v", err)
	}
	if s, err := client.Snapshot(t.Context(), 0); err != nil || len(s.Tenants) != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	if err := client.Resume(t.Context(), []cell.Tenant{older, a}); err != nil {
		t.Fatal(err)
	}
	for _, tn := range []cell.Tenant{a, b} {
		await(t, client, tn.ID, ready)
		k, leave := visitor(t, dir, tn)
		if _, err := k.CoreV1().Namespaces().Get(t.Context(), "default", metav1.GetOptions{}); err != nil {
			t.Errorf("%s: %v", tn.Name, err) // its certificate says who answers
		}
		leave()
	}
}
