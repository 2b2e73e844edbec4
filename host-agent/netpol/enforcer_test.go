package netpol

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"sublet.dev/host-agent/nft"
	"sublet.dev/host-agent/podnet"
	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/reach"
	"sublet.dev/isolation/tenant"
)

var update = flag.Bool("update", false, "write the golden files anew")

// What nft prints of the kernel's table is the golden file, and reads back as what
// was rendered.
func TestKernelHasWhatWasRendered(t *testing.T) {
	l := newLab(t)
	table := Render(l.plug())
	kernel := l.apply(table)
	var printed []byte
	inside(t, l.node, func() (err error) {
		printed, err = exec.Command("nft", "--stateless", "list", "table", "inet", TableName).Output()
		return err
	})
	const golden = "testdata/table.nft"
	if *update {
		if err := os.WriteFile(golden, printed, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(printed, want) {
		t.Errorf("the kernel's table is not %s (run with -update to accept):\n%s", golden, printed)
	}
	var read nft.Table
	inside(t, l.node, func() (err error) { read, err = kernel.Read(t.Context()); return err })
	if got, want := read.Lines(), table.Lines(); !slices.Equal(got, want) {
		t.Errorf("read back:\n%s\nrendered:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// The script that people see is one that nft takes, and says the same.
func TestScript(t *testing.T) {
	l := newLab(t)
	w := testWorld()
	l.nft(Script(w.Cluster, w.Fences[0], []netip.Addr{addr(podA1), addr(podA2)}, []netip.Addr{addr(podIngress)}))
	inside(t, l.node, func() error {
		kernel, err := nft.Open(TableName)
		if err != nil {
			return err
		}
		read, err := kernel.Read(t.Context())
		want := Render(State{Cluster: w.Cluster, DNS: w.Fences[0].DNS[0], Tenants: []Tenant{{Fence: w.Fences[0], Remote: []netip.Addr{addr(podA1), addr(podA2)}, Ingress: []netip.Addr{addr(podIngress)}}}})
		if !slices.Equal(read.Lines(), want.Lines()) {
			t.Errorf("the script says:\n%s", strings.Join(read.Lines(), "\n"))
		}
		return err
	})
}

// enforcer returns one whose host API has told the test's two tenants.
func (l *lab) enforcer() (*Enforcer, *podnet.Registry) {
	l.t.Helper()
	registry, err := podnet.OpenRegistry(l.t.TempDir())
	if err != nil {
		l.t.Fatal(err)
	}
	var e *Enforcer
	inside(l.t, l.node, func() (err error) {
		e, err = New(Config{NodeName: "node", NodeIP: addr(nodeIP), DNSPort: 10053, Pods: cidrs("10.244.0.0/16")[0], Services: cidrs("10.96.0.0/12")[0],
			Registry: registry, Logger: slog.New(slog.DiscardHandler)})
		return err
	})
	return e, registry
}

func knownWorld() world {
	w := world{synced: true, fences: map[string]policy.Fence{}, nodePods: cidrs("10.244.0.0/24"), local: map[podKey]Pod{}}
	for _, f := range testWorld().Fences {
		w.fences[f.Namespace] = f
	}
	return w
}

// know is what the host API's pods do: here is one.
func (w world) know(namespace, pod string) {
	w.local[podKey{namespace: namespace, name: pod}] = Pod{}
}

// attach plugs a pod in as the CNI plugin does.
func (l *lab) attach(e *Enforcer, r *podnet.Registry, container, namespace, ip string) string {
	l.t.Helper()
	link := l.pod(ip)
	e.world.know(namespace, "pod-"+container)
	inside(l.t, l.node, func() error {
		return first(e.Admits(namespace), r.Put(podnet.Endpoint{ContainerID: container, Namespace: namespace, Pod: "pod-" + container, Interface: link, Addresses: []netip.Addr{addr(ip)}}), e.Sync(l.t.Context()))
	})
	return link
}

func TestAdmits(t *testing.T) {
	l := newLab(t)
	e, _ := l.enforcer()
	a := tenant.HostNamespace("a", "a")
	if err := e.Admits(a); !errors.Is(err, ErrNotReady) {
		t.Errorf("before the tenants are known: %v", err)
	}
	if err := e.Sync(t.Context()); !errors.Is(err, ErrNotReady) {
		t.Errorf("Sync before the tenants are known: %v", err)
	}
	e.world = knownWorld()
	for namespace, want := range map[string]error{a: nil, "kube-system": nil, tenant.HostNamespace("gone", "gone"): ErrUnknownTenant} {
		if err := e.Admits(namespace); !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("%s: got %v, want %v", namespace, err, want)
		}
	}
	e.world.nodePods = nil
	if err := e.Admits(a); !errors.Is(err, ErrNotReady) {
		t.Errorf("before the node has a pod range: %v", err)
	}
}

// An endpoint comes, another comes and goes, its address is given to another
// tenant: at each step the packets that arrive are the new owner's.
func TestEndpointsComeAndGo(t *testing.T) {
	l := newLab(t, internet)
	e, r := l.enforcer()
	e.world = knownWorld()
	a, b := tenant.HostNamespace("a", "a"), tenant.HostNamespace("b", "b")
	l.attach(e, r, "a1", a, podA1)
	l.attach(e, r, "a2", a, podA2)
	flow := func(from, to string) reach.Flow {
		return reach.Flow{Sender: addr(from), Source: addr(from), To: netip.AddrPortFrom(addr(to), 8080), Proto: reach.UDP}
	}
	l.expect([]reach.Flow{flow(podA1, podA2), flow(podA2, podA1), flow(podA1, internet)}, true, true, true)

	// The same connection goes on while its ends are there, and not for the next
	// owner of the address.
	inside(t, l.node, func() error { return first(r.Delete("a2"), e.Sync(t.Context())) })
	l.expect([]reach.Flow{flow(podA1, podA2), flow(podA2, podA1)}, false, false)
	e.world.know(b, "b1")
	inside(t, l.node, func() error {
		return first(r.Put(podnet.Endpoint{ContainerID: "b1", Namespace: b, Pod: "b1", Interface: "veth1", Addresses: []netip.Addr{addr(podA2)}}), e.Sync(t.Context()))
	})
	l.expect([]reach.Flow{flow(podA1, podA2), flow(podA2, podA1), flow(podA2, internet)}, false, false, true)

	// A tenant that is gone: its pods reach nothing, whatever was established.
	delete(e.world.fences, b)
	inside(t, l.node, func() error { return e.Sync(t.Context()) })
	l.expect([]reach.Flow{flow(podA2, internet), flow(podA1, internet)}, false, true)
}

func (l *lab) expect(flows []reach.Flow, want ...bool) {
	l.t.Helper()
	for i, arrived := range l.probe(flows) {
		if arrived != want[i] {
			l.t.Errorf("%s: arrived=%v, want %v", describe(flows[i]), arrived, want[i])
		}
	}
}

// An established connection is forgotten with its pod: else the next pod at that
// address would inherit it.
func TestConnectionsEndWithTheirPod(t *testing.T) {
	l := newLab(t, internet)
	e, r := l.enforcer()
	e.world = knownWorld()
	l.attach(e, r, "a1", tenant.HostNamespace("a", "a"), podA1)
	l.attach(e, r, "b1", tenant.HostNamespace("b", "b"), podB)
	count := func(ip string) (n int) {
		t.Helper()
		inside(t, l.node, func() error {
			out, err := exec.Command("conntrack", "-L", "-s", ip).Output()
			n = strings.Count(string(out), "src="+ip+" ")
			return err
		})
		return n
	}
	for _, ip := range []string{podA1, podB} {
		l.probe([]reach.Flow{{Sender: addr(ip), Source: addr(ip), To: at(internet + ":9"), Proto: reach.UDP}})
		if count(ip) == 0 {
			t.Fatalf("the kernel knows no connection of %s: nothing to forget", ip)
		}
	}
	inside(t, l.node, func() error { return first(r.Delete("b1"), e.Sync(t.Context())) })
	if n := count(podB); n != 0 {
		t.Errorf("%d connections of the pod that is gone are left", n)
	}
	if count(podA1) == 0 {
		t.Error("another pod's connections were forgotten")
	}
}

// What somebody changes in the kernel is put back; counters go on over changes.
func TestRepairAndFacts(t *testing.T) {
	l := newLab(t, internet, "169.254.169.254")
	e, r := l.enforcer()
	e.world = knownWorld()
	a := tenant.HostNamespace("a", "a")
	l.attach(e, r, "a1", a, podA1)
	metadata := reach.Flow{Sender: addr(podA1), Source: addr(podA1), To: at("169.254.169.254:80"), Proto: reach.TCP}
	l.expect([]reach.Flow{metadata}, false)
	l.attach(e, r, "b1", tenant.HostNamespace("b", "b"), podB)

	var f Facts
	inside(t, l.node, func() (err error) { f, err = e.Facts(t.Context(), a, "pod-a1"); return err })
	if !slices.Equal(f.Rendered, f.Enforced) || len(f.Rendered) < 20 {
		t.Errorf("rendered %d lines, enforced %d", len(f.Rendered), len(f.Enforced))
	}
	if f.Counters["denied"] != 1 || f.Counters["blocked"] != 1 {
		t.Errorf("counters: %v, want one packet denied, as blocked", f.Counters)
	}
	if other := "t_" + tenant.ID("b").Short(); strings.Contains(fmt.Sprint(f), other) || strings.Contains(fmt.Sprint(f), podB) {
		t.Error("the facts of one tenant tell of another")
	}

	l.nft("flush chain inet sublet t_" + tenant.ID("a").Short() + "_out\n")
	inside(t, l.node, func() (err error) { f, err = e.Facts(t.Context(), a, ""); return err })
	if slices.Equal(f.Rendered, f.Enforced) {
		t.Error("the facts do not tell that a chain was emptied")
	}
	l.expect([]reach.Flow{metadata}, true)
	inside(t, l.node, func() error { return e.Sync(t.Context()) })
	l.expect([]reach.Flow{metadata}, false)

	l.nft("delete table inet sublet\n")
	inside(t, l.node, func() error { return e.Sync(t.Context()) })
	l.expect([]reach.Flow{metadata}, false)
	inside(t, l.node, func() error { return first(Cleanup(t.Context()), Cleanup(t.Context())) })
	l.expect([]reach.Flow{metadata}, true)
}

// An agent that starts again takes over the table of the one before.
func TestRestart(t *testing.T) {
	l := newLab(t, internet)
	e, r := l.enforcer()
	e.world = knownWorld()
	l.attach(e, r, "a1", tenant.HostNamespace("a", "a"), podA1)
	again, _ := l.enforcer()
	again.Registry = r
	allowed := reach.Flow{Sender: addr(podA1), Source: addr(podA1), To: at(internet + ":80"), Proto: reach.TCP}
	if err := again.Sync(t.Context()); !errors.Is(err, ErrNotReady) {
		t.Fatalf("Sync without tenants: %v", err)
	}
	l.expect([]reach.Flow{allowed}, true)
	again.world = knownWorld()
	again.world.know(tenant.HostNamespace("a", "a"), "pod-a1")
	inside(t, l.node, func() error { return again.Sync(t.Context()) })
	l.expect([]reach.Flow{allowed}, true)
	if f, ok := again.FenceAt(addr(podA1)); !ok || f.Tenant != "a" {
		t.Errorf("FenceAt = %v, %v", f, ok)
	}
	if _, ok := again.FenceAt(addr(podB)); ok {
		t.Error("an address without pod has a fence")
	}
}
