package server

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/test/tail"
)

// world is what the tests share: a host and two tenants, because a control
// plane takes a while to start and no test disturbs another's namespace.
type world struct {
	dir        string
	golden     string
	host, a, b *member
}

// member is a control plane with a listener, reached like a client would.
type member struct {
	name    string
	config  Config
	server  *Server
	ca      *pki.Authority
	addr    string
	kubelet *fakeNode
	served  chan error
}

var w world

func TestMain(m *testing.M) { os.Exit(tail.Main(tests{m})) }

// tests is the package's, with the world they run in.
type tests struct{ m *testing.M }

func (t tests) Run() int {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	defer w.remove()
	if err := w.start(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "start the control planes:", err)
		return 1
	}
	code := t.m.Run()
	if err := w.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stop the control planes:", err)
		code = 1
	}
	return code
}

func (w *world) start(ctx context.Context) (err error) {
	if w.dir, err = os.MkdirTemp("", "sublet-server-"); err != nil {
		return err
	}
	w.golden = filepath.Join(w.dir, "golden")
	if w.host, err = startMember(ctx, hostConfig(w.dir, "host")); err != nil {
		return err
	}
	if w.a, err = startMember(ctx, tenantConfig(w.dir, "a", 1)); err != nil {
		return err
	}
	w.b, err = startMember(ctx, tenantConfig(w.dir, "b", 2))
	return err
}

func (w *world) stop() error {
	for _, m := range []*member{w.a, w.b, w.host} {
		if err := m.stop(); err != nil {
			return err
		}
	}
	return nil
}

// remove leaves nothing on disk, however the tests ended.
func (w *world) remove() {
	if err := os.RemoveAll(w.dir); err != nil {
		fmt.Fprintln(os.Stderr, "remove the stores of the tests:", err)
	}
}

func hostConfig(dir, name string) Config {
	return Config{
		Name: name, StorePath: filepath.Join(dir, name, "host.db"), GoldenDir: filepath.Join(dir, "golden"),
		KeyFile:     filepath.Join(dir, name+".keys"),
		ServiceCIDR: netip.MustParsePrefix("10.96.0.0/12"),
		Advertise:   netip.MustParseAddrPort("203.0.113.7:6443"),
		Host:        &HostConfig{PodCIDR: netip.MustParsePrefix("10.244.0.0/16")},

		TenantMetrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "all tenants") }),
	}
}

// tenantConfig is that of tenant i with a service slice of its own.
func tenantConfig(dir, name string, i int) Config {
	return Config{
		Name: name, StorePath: filepath.Join(dir, name, "store.db"), GoldenDir: filepath.Join(dir, "golden"),
		KeyFile:     filepath.Join(dir, name+".keys"),
		ServiceCIDR: netip.MustParsePrefix(fmt.Sprintf("10.96.%d.0/22", 4*i)),
		NodePorts:   [2]int{30000 + 20*i, 30019 + 20*i},
		Advertise:   netip.MustParseAddrPort(fmt.Sprintf("203.0.113.7:%d", 7000+i)),
		ValidatePod: refusePrivileged,
	}
}

func startMember(ctx context.Context, c Config) (*member, error) {
	m := &member{name: c.Name, kubelet: &fakeNode{}, served: make(chan error, 1)}
	if err := os.MkdirAll(filepath.Dir(c.StorePath), 0o700); err != nil {
		return nil, err
	}
	var err error
	if m.ca, err = pki.LoadOrCreate(filepath.Join(filepath.Dir(c.StorePath), "pki"), c.Name); err != nil {
		return nil, err
	}
	c.PKI = m.ca
	if c.Host == nil {
		c.Kubelet = m.kubelet
	}
	m.config = c
	if m.server, err = Start(ctx, c); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	m.addr = l.Addr().String()
	go func() { m.served <- m.server.Serve(context.Background(), l) }()
	return m, nil
}

func (m *member) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := m.server.Stop(ctx); err != nil {
		return err
	}
	return <-m.served
}

// as is a client configuration with a certificate of the member's authority.
func (m *member) as(t *testing.T, user string, groups ...string) *rest.Config {
	t.Helper()
	data, err := m.ca.Kubeconfig(pki.KubeconfigOptions{Server: "https://" + m.addr, User: user, Groups: groups})
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(data)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	return config
}

func (m *member) admin(t *testing.T) *rest.Config { return m.as(t, "admin", "system:masters") }

func client(t *testing.T, c *rest.Config) kubernetes.Interface {
	t.Helper()
	k, err := kubernetes.NewForConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
