package attack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"sublet.dev/isolation/policy"
	"sublet.dev/tenant-apiserver/frontdoor"
	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/tenant-apiserver/server"
)

// world is two tenants behind a front door.
type world struct {
	dir              string
	door             *frontdoor.FrontDoor
	doorAt           string
	attacker, victim *tenant
}

// tenant is a control plane with its socket.
type tenant struct {
	name   string
	ca     *pki.Authority
	server *server.Server
	node   *node
	served chan error
}

// node is the kubelet of a tenant's nodes: it says and records what it is asked.
type node struct {
	mu    sync.Mutex
	asked []string
}

// ServeHTTP implements http.Handler.
func (n *node) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	n.asked = append(n.asked, r.URL.Path)
	n.mu.Unlock()
	fmt.Fprintf(w, "asked for %s", r.URL.Path)
}

// take returns what was asked since it was last called.
func (n *node) take() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	asked := n.asked
	n.asked = nil
	return asked
}

var w world

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	silent := slog.New(slog.DiscardHandler)
	slog.SetDefault(silent)
	klog.SetSlogLogger(silent)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	end, err := w.start(ctx)
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, "start the control planes:", err)
	} else {
		code = m.Run()
	}
	if err := end(); err != nil {
		fmt.Fprintln(os.Stderr, "stop the control planes:", err)
		code = 1
	}
	return code
}

// start makes the world; the function it returns ends it, also when it failed.
func (w *world) start(ctx context.Context) (end func() error, err error) {
	var ends []func() error
	end = func() error {
		var errs []error
		for i := len(ends) - 1; i >= 0; i-- {
			errs = append(errs, ends[i]())
		}
		return errors.Join(errs...)
	}
	if w.dir, err = os.MkdirTemp("", "attack"); err != nil {
		return end, err
	}
	ends = append(ends, func() error { return os.RemoveAll(w.dir) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return end, err
	}
	w.doorAt = l.Addr().String()
	if w.door, err = frontdoor.New(frontdoor.Config{Listener: l, Logger: slog.New(slog.DiscardHandler)}); err != nil {
		return end, errors.Join(err, l.Close())
	}
	life, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.door.Run(life) }()
	ends = append(ends, func() error { cancel(); return <-done })
	for _, t := range []**tenant{&w.attacker, &w.victim} {
		name := map[**tenant]string{&w.attacker: "attacker", &w.victim: "victim"}[t]
		if *t, err = w.tenant(ctx, name, name); err != nil {
			return end, err
		}
		ends = append(ends, (*t).stop)
	}
	return end, nil
}

// tenant starts a control plane of a name, with all that is its own in a directory.
func (w *world) tenant(ctx context.Context, name, dir string) (*tenant, error) {
	t := &tenant{name: name, node: &node{}, served: make(chan error, 1)}
	dir = filepath.Join(w.dir, dir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	if t.ca, err = pki.LoadOrCreate(filepath.Join(dir, "pki"), name); err != nil {
		return nil, err
	}
	t.server, err = server.Start(ctx, server.Config{
		Name: name, ID: "id-of-" + filepath.Base(dir), StorePath: filepath.Join(dir, "store.db"), KeyFile: filepath.Join(dir, "keys"),
		GoldenDir: filepath.Join(w.dir, "golden"), PKI: t.ca, ServiceCIDR: netip.MustParsePrefix("10.96.4.0/22"),
		ServingNames: []string{name + ".test"}, Kubelet: t.node,
		ValidatePod: func(p *corev1.Pod) error { return policy.Err(policy.CheckPod(p, policy.LevelFor("gvisor"))) },
		Logger:      slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, errors.Join(err, t.server.Stop(ctx))
	}
	go func() { t.served <- t.server.Serve(context.Background(), l) }()
	return t, w.door.Set(frontdoor.Route{Tenant: filepath.Base(dir), ServerName: name + ".test", Socket: socket})
}

func (t *tenant) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	return errors.Join(t.server.Stop(ctx), <-t.served)
}

// as is a client configuration with a certificate of the tenant, through the door.
func (t *tenant) as(tb testing.TB, user string, groups ...string) *rest.Config {
	tb.Helper()
	data, err := t.ca.Kubeconfig(pki.KubeconfigOptions{Server: "https://" + w.doorAt, TLSServerName: t.name + ".test", User: user, Groups: groups})
	if err != nil {
		tb.Fatal(err)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(data)
	if err != nil {
		tb.Fatal(err)
	}
	config.QPS = -1
	return config
}

func (t *tenant) admin(tb testing.TB) *rest.Config { return t.as(tb, "admin", "system:masters") }

func client(t *testing.T, c *rest.Config) kubernetes.Interface {
	t.Helper()
	k, err := kubernetes.NewForConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// do sends a request with a configuration's credentials.
func do(t *testing.T, c *rest.Config, method, path string, header http.Header) (int, string) {
	t.Helper()
	transport, err := rest.TransportFor(c)
	if err != nil {
		t.Fatal(err)
	}
	return send(t, transport, method, c.Host+path, header)
}

func await(t *testing.T, what string, ok func(context.Context) (bool, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if err := wait.PollUntilContextCancel(ctx, 20*time.Millisecond, true, ok); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// namespace makes one with its service account.
func namespace(t *testing.T, k kubernetes.Interface) string {
	t.Helper()
	ns, err := k.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the service account", func(ctx context.Context) (bool, error) {
		_, err := k.CoreV1().ServiceAccounts(ns.Name).Get(ctx, "default", metav1.GetOptions{})
		return err == nil, nil
	})
	return ns.Name
}
