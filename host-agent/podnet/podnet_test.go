package podnet_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"sublet.dev/host-agent/podnet"
)

// asPlugin makes this binary the plugin.
const asPlugin = "SUBLET_TEST_CNI"

func TestMain(m *testing.M) {
	if os.Getenv(asPlugin) != "" {
		podnet.PluginMain()
		return
	}
	os.Exit(m.Run())
}

// kernel is a fence that notes what it was asked for.
type kernel struct {
	registry *podnet.Registry
	mu       sync.Mutex
	rules    []string
	broken   bool
}

func (k *kernel) Admits(namespace string) error {
	if namespace == "unknown" {
		return errors.New("tenant of namespace unknown has no fence")
	}
	return nil
}

func (k *kernel) Await(_ context.Context, e podnet.Endpoint) error {
	if e.Pod == "unheard-of" {
		return errors.New("nobody has heard of the pod")
	}
	return nil
}

func (k *kernel) Sync(context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.broken {
		return errors.New("nft said no")
	}
	k.rules = nil
	for _, e := range k.registry.List() {
		k.rules = append(k.rules, fmt.Sprint(e.Interface, e.Addresses))
	}
	return nil
}

func (k *kernel) String() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return strings.Join(k.rules, ",")
}

type setup struct {
	dir, socket string
	kernel      *kernel
	stop        func()
}

// agent starts the agent's side in a folder of its own.
func agent(t *testing.T) *setup {
	t.Helper()
	dir := t.TempDir()
	s := &setup{dir: filepath.Join(dir, "r"), socket: filepath.Join(dir, "s")}
	s.start(t)
	return s
}

func (s *setup) start(t *testing.T) {
	t.Helper()
	registry, err := podnet.OpenRegistry(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	s.kernel = &kernel{registry: registry}
	srv := &podnet.Server{Registry: registry, Fence: s.kernel, Logger: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- srv.Serve(ctx, s.socket) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(s.stop)
	for {
		if _, err := os.Stat(s.socket); err == nil {
			return
		}
		select {
		case err := <-done:
			t.Fatalf("Serve: %v", err)
		default:
		}
	}
}

// plugin runs the plugin as containerd does.
func (s *setup) plugin(t *testing.T, command, id, namespace, ip string) (string, error) {
	t.Helper()
	conf, err := json.Marshal(map[string]any{
		"cniVersion": "1.0.0", "name": "podnet", "type": podnet.PluginName, "socket": s.socket, "registry": s.dir,
		"prevResult": map[string]any{
			"cniVersion": "1.0.0",
			"interfaces": []any{map[string]any{"name": "veth" + id}, map[string]any{"name": "eth0", "sandbox": "/run/netns/x"}},
			"ips":        []any{map[string]any{"address": ip + "/32", "interface": 1}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asPlugin+"=1", "CNI_COMMAND="+command, "CNI_CONTAINERID="+id, "CNI_NETNS=/run/netns/x", "CNI_IFNAME=eth0", "CNI_PATH=/",
		"CNI_NETNS_OVERRIDE=1", "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE="+namespace+";K8S_POD_NAME=web;K8S_POD_UID=u")
	cmd.Stdin = bytes.NewReader(conf)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (s *setup) mustPlugin(t *testing.T, command, id, namespace, ip string) string {
	t.Helper()
	out, err := s.plugin(t, command, id, namespace, ip)
	if err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
	return out
}

func TestAddReturnsWithTheRules(t *testing.T) {
	s := agent(t)
	out := s.mustPlugin(t, "ADD", "a", "tenant", "10.244.0.5")
	if got := s.kernel.String(); got != "vetha[10.244.0.5]" {
		t.Errorf("the kernel has %q", got)
	}
	if !strings.Contains(out, "10.244.0.5/32") {
		t.Errorf("the result of the plugin before is lost: %s", out)
	}
	s.mustPlugin(t, "CHECK", "a", "tenant", "10.244.0.5")
	for range 2 { // DEL must be repeatable
		s.mustPlugin(t, "DEL", "a", "tenant", "10.244.0.5")
	}
	if got := s.kernel.String(); got != "" {
		t.Errorf("after DEL the kernel has %q", got)
	}
	if out, err := s.plugin(t, "CHECK", "a", "tenant", "10.244.0.5"); err == nil {
		t.Errorf("CHECK of a deleted endpoint succeeds: %s", out)
	}
}

func TestNoFenceNoPod(t *testing.T) {
	s := agent(t)
	if out, err := s.plugin(t, "ADD", "a", "unknown", "10.244.0.5"); err == nil || !strings.Contains(out, "has no fence") {
		t.Errorf("a tenant without a fence: %v: %s", err, out)
	}
	s.kernel.mu.Lock()
	s.kernel.broken = true
	s.kernel.mu.Unlock()
	if out, err := s.plugin(t, "ADD", "a", "tenant", "10.244.0.5"); err == nil || !strings.Contains(out, "nft said no") {
		t.Errorf("a kernel without the rules: %v: %s", err, out)
	}
	if left := s.kernel.registry.List(); len(left) != 0 {
		t.Errorf("a refused endpoint is left: %v", left)
	}
	s.stop()
	if out, err := s.plugin(t, "ADD", "a", "tenant", "10.244.0.5"); err == nil {
		t.Errorf("ADD without an agent succeeds: %s", out)
	}
}

func TestAgentStartsAgain(t *testing.T) {
	s := agent(t)
	s.mustPlugin(t, "ADD", "a", "tenant", "10.244.0.5")
	s.mustPlugin(t, "ADD", "b", "tenant", "10.244.0.6")
	s.stop()
	s.mustPlugin(t, "DEL", "a", "tenant", "10.244.0.5")
	s.start(t)
	if _, ok := s.kernel.registry.At(netip.MustParseAddr("10.244.0.6")); !ok {
		t.Error("an endpoint is forgotten")
	}
	if e, ok := s.kernel.registry.At(netip.MustParseAddr("10.244.0.5")); ok {
		t.Errorf("an endpoint that was deleted meanwhile is back: %v", e)
	}
}

// An address that is given anew must not keep the rights of whom it was before.
func TestAddressIsTakenOver(t *testing.T) {
	s := agent(t)
	s.mustPlugin(t, "ADD", "a", "tenant", "10.244.0.5")
	s.mustPlugin(t, "ADD", "b", "other", "10.244.0.5")
	all := s.kernel.registry.List()
	if len(all) != 1 || all[0].Namespace != "other" {
		t.Errorf("the registry has %v", all)
	}
}

func TestRegistryRefusesWhatIsNoEndpoint(t *testing.T) {
	for name, content := range map[string]string{
		"a.json": `{`,
		"b.json": `{"containerID":"other","namespace":"n","pod":"p","interface":"v","addresses":["10.0.0.1"]}`,
		"c.json": `{"containerID":"c","namespace":"n","pod":"p","interface":"v","addresses":["127.0.0.1"]}`,
		"d.json": `{"containerID":"d","namespace":"n","pod":"p","interface":"v\"; drop","addresses":["10.0.0.1"]}`,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := podnet.OpenRegistry(dir); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, name)) {
			t.Errorf("%s: %v, want an error that names the file", content, err)
		}
	}
}
