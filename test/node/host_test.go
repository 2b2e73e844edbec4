package node_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"sublet.dev/host-agent/agent"
	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/tenant-apiserver/server"
	"sublet.dev/test/wire"
)

const (
	nodeName = "n1"
	apiPort  = "6443"
	// patience ends a test that would wait for ever; it is no assertion.
	patience = 5 * time.Minute
)

// host is a control plane and a node's agent.
type host struct {
	t      *testing.T
	dir    string // the agent's data directory
	client kubernetes.Interface
	config *rest.Config // the host's admin
	admin  string       // kubeconfig of the host's admin
	agent  *exec.Cmd
	log    string // the agent's log
	conf   agent.Config
}

// root is the checkout.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// newHost starts a control plane; the agent is started by startAgent. Everything is
// stopped and taken down when the test ends.
func newHost(t *testing.T) *host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a node needs root: namespaces, cgroups, mounts")
	}
	if _, err := os.Stat(filepath.Join(root(t), "bin/node/images/canary.tar")); err != nil {
		t.Skip("the node's binaries are not there: run `make deps`")
	}
	h := &host{t: t, dir: t.TempDir()}
	h.log = filepath.Join(h.dir, "agent.log")
	authority, err := pki.LoadOrCreate(filepath.Join(h.dir, "server/pki"), "host")
	h.must(err)
	h.startAPI(authority)
	h.must(h.credentials(authority))
	exe, err := os.Executable()
	h.must(err)
	h.conf = agent.Config{
		DataDir: h.dir, BinDir: filepath.Join(root(t), "bin/node"), NodeName: nodeName, NodeIP: netip.MustParseAddr(wire.Node),
		Kubeconfig: filepath.Join(h.dir, "node.kubeconfig"), ProxyKubeconfig: filepath.Join(h.dir, "proxy.kubeconfig"),
		AgentKubeconfig: h.admin, Executable: exe,
	}
	h.runtimeClasses()
	h.mustKubectl("apply", "-f", filepath.Join(root(t), "api/v1alpha1/sublet.dev_virtualclusters.yaml"))
	t.Cleanup(func() {
		if h.agent != nil && h.agent.ProcessState == nil {
			h.stopAgent(syscall.SIGTERM)
		}
		if t.Failed() {
			h.down(true)
		}
	})
	return h
}

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// startAPI starts the host's control plane and serves it on the node's address.
func (h *host) startAPI(authority *pki.Authority) {
	h.t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(wire.Node, apiPort))
	h.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	at := netip.MustParseAddrPort(l.Addr().String())
	s, err := server.Start(ctx, server.Config{
		Name: "host", StorePath: filepath.Join(h.dir, "server/host.db"), PKI: authority,
		ServiceCIDR: netip.MustParsePrefix("10.96.0.0/12"), Advertise: at, ServingIPs: []netip.Addr{at.Addr()},
		Host: &server.HostConfig{PodCIDR: netip.MustParsePrefix("10.244.0.0/16")}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		cancel()
		h.t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	h.t.Cleanup(func() {
		cancel()
		<-served
		stopping, done := context.WithTimeout(context.Background(), patience)
		defer done()
		if err := s.Stop(stopping); err != nil {
			h.t.Log(err)
		}
	})
	h.config = s.Loopback()
	h.client, err = kubernetes.NewForConfig(h.config)
	h.must(err)
}

// credentials writes what the agent is given.
func (h *host) credentials(authority *pki.Authority) error {
	h.admin = filepath.Join(h.dir, "admin.kubeconfig")
	for path, id := range map[string]pki.KubeconfigOptions{
		h.admin:                                  {User: "admin", Groups: []string{"system:masters"}},
		filepath.Join(h.dir, "node.kubeconfig"):  {User: "system:node:" + nodeName, Groups: []string{"system:nodes"}},
		filepath.Join(h.dir, "proxy.kubeconfig"): {User: "system:kube-proxy"},
	} {
		id.Server, id.TTL, id.ContextName = "https://"+net.JoinHostPort(wire.Node, apiPort), time.Hour, "host"
		raw, err := authority.Kubeconfig(id)
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			return err
		}
	}
	dir := filepath.Join(h.dir, "agent/pki")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	cert, err := authority.IssueServing([]string{nodeName}, []netip.Addr{netip.MustParseAddr(wire.Node)}, time.Hour)
	if err != nil {
		return err
	}
	return writePair(dir, cert, authority.CAPEM())
}

func (h *host) runtimeClasses() {
	h.t.Helper()
	for _, s := range tenant.Sandboxes() {
		_, err := h.client.NodeV1().RuntimeClasses().Create(h.t.Context(), &nodev1.RuntimeClass{
			ObjectMeta: metav1.ObjectMeta{Name: s.RuntimeClass()}, Handler: s.Handler(),
			Scheduling: &nodev1.Scheduling{NodeSelector: map[string]string{s.NodeLabel(): "true"}},
		}, metav1.CreateOptions{})
		h.must(err)
	}
}

// startAgent starts the agent's process and returns when the node is ready.
func (h *host) startAgent() {
	h.t.Helper()
	config := h.conf
	raw, err := json.Marshal(config)
	h.must(err)
	log, err := os.OpenFile(h.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	h.must(err)
	h.agent = exec.Command(config.Executable)
	h.agent.Env = append(os.Environ(), agentRole+"="+string(raw))
	h.agent.Stdout, h.agent.Stderr = log, log
	h.must(h.agent.Start())
	h.must(log.Close())
	h.wait("the node to be ready", func(ctx context.Context) (bool, string) {
		if h.agent.ProcessState != nil {
			return false, "the agent ended"
		}
		n, err := h.client.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
		if err != nil {
			return false, err.Error()
		}
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady {
				return c.Status == corev1.ConditionTrue && labelled(n) && h.answers(ctx), c.Message
			}
		}
		return false, "no condition Ready"
	})
}

// labelled says whether the node's labels are there, which the agent sets.
func labelled(n *corev1.Node) bool {
	return n.Labels[tenant.GVisor.NodeLabel()] == "true" && n.Labels[tenant.RuncUserNS.NodeLabel()] == "true"
}

// answers says whether the agent serves: a node stays Ready for a while without one.
func (h *host) answers(ctx context.Context) bool {
	_, err := h.client.CoreV1().RESTClient().Get().Resource("nodes").Name(nodeName).SubResource("proxy").Suffix("pods").DoRaw(ctx)
	return err == nil
}

// stopAgent ends the agent by a signal and waits for it.
func (h *host) stopAgent(s syscall.Signal) {
	h.t.Helper()
	h.must(h.agent.Process.Signal(s))
	err := h.agent.Wait()
	if s == syscall.SIGTERM && err != nil {
		h.t.Errorf("the agent did not end well: %v\n%s", err, h.tail())
	}
}

// wait waits until done returns true, and fails the test with done's last reason.
func (h *host) wait(what string, done func(context.Context) (bool, string)) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, why := done(ctx)
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			h.t.Fatalf("waiting for %s: %s\n%s", what, why, h.tail())
		}
	}
}

// tail returns the end of the logs.
func (h *host) tail() string {
	var out strings.Builder
	for _, f := range []string{h.log, filepath.Join(h.dir, "log/containerd.log")} {
		raw, _ := os.ReadFile(f)
		fmt.Fprintf(&out, "--- %s\n%s\n", f, raw[max(0, len(raw)-6000):])
	}
	return out.String()
}

// kubectl runs kubectl as the host's admin.
func (h *host) kubectl(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(root(h.t), "bin/kubectl"), append([]string{"--kubeconfig", h.admin}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// mustKubectl runs kubectl, which must succeed.
func (h *host) mustKubectl(args ...string) string {
	h.t.Helper()
	out, err := h.kubectl(args...)
	if err != nil {
		h.t.Fatalf("kubectl %q: %v\n%s\n%s", args, err, out, h.tail())
	}
	return out
}
