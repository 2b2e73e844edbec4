package node

import (
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// complete returns a layout whose binaries are all there, by name.
func complete(t *testing.T) Layout {
	t.Helper()
	l := Layout{Data: t.TempDir(), Bin: t.TempDir()}
	for _, b := range binaries() {
		if err := os.MkdirAll(filepath.Dir(l.bin(b)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(l.bin(b), nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func TestCheckSaysWhatToDo(t *testing.T) {
	if os.Geteuid() != 0 {
		err := Check(complete(t), netip.MustParseAddr("127.0.0.1"))
		if err == nil || !strings.Contains(err.Error(), "root") {
			t.Errorf("not as root: %v", err)
		}
		t.Skip("the rest needs root")
	}
	missing := complete(t)
	if err := os.Remove(missing.bin("runsc")); err != nil {
		t.Fatal(err)
	}
	if err := Check(missing, netip.MustParseAddr("127.0.0.1")); err == nil || !strings.Contains(err.Error(), "runsc") || !strings.Contains(err.Error(), "make deps") {
		t.Errorf("without runsc: %v", err)
	}
	unfit := complete(t)
	if err := os.Chmod(unfit.bin("runsc"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Check(unfit, netip.MustParseAddr("127.0.0.1")); err == nil || !strings.Contains(err.Error(), "not a program that can be run") {
		t.Errorf("with a runsc that is no program: %v", err)
	}
	// 192.0.2.0/24 is TEST-NET-1 (RFC 5737).
	if err := Check(complete(t), netip.MustParseAddr("192.0.2.77")); err == nil || !strings.Contains(err.Error(), "--node-ip") {
		t.Errorf("with an address of another machine: %v", err)
	}
	// Another address of loopback, so that a node on this machine is not met.
	at := netip.MustParseAddrPort("127.83.85.66:10250")
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := Check(complete(t), at.Addr()); err == nil || !strings.Contains(err.Error(), "taken") {
		t.Errorf("with the port taken: %v", err)
	}
}

func TestDetect(t *testing.T) {
	m, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	if m.Kernel == "" || m.CPUs < 1 {
		t.Errorf("found %+v", m)
	}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); (err == nil) != m.CgroupV2 {
		t.Errorf("cgroup v2 is %v", m.CgroupV2)
	}
}

// Two nodes on a machine share nothing outside their data directories.
func TestLayoutsAreApart(t *testing.T) {
	a, b := Layout{Data: "/var/lib/a"}, Layout{Data: "/var/lib/b"}
	for _, f := range []func(Layout) string{Layout.Run, Layout.Cgroup, Layout.Network, Layout.Agent} {
		if f(a) == f(b) {
			t.Errorf("both have %s", f(a))
		}
	}
	// The longest socket is a runc shim's: 64 hex digits below the run directory.
	if longest := filepath.Join(a.Run(), "s", strings.Repeat("0", 64)); len(longest) > 107 {
		t.Errorf("%q does not fit in a socket's address", longest)
	}
}

func TestWriteNetwork(t *testing.T) {
	l := Layout{Data: t.TempDir(), Bin: "/bin"}
	if err := os.MkdirAll(l.CNIConf(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteNetwork(l, netip.MustParsePrefix("10.244.3.0/24"), "/run/cni.sock", "/reg"); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(l.CNIConf(), "10-sublet.conflist"))
	if err != nil {
		t.Fatal(err)
	}
	var conf struct {
		Plugins []struct {
			Type     string
			IPMasq   bool
			Socket   string
			Registry string
			IPAM     struct{ DataDir string }
		}
	}
	if err := json.Unmarshal(raw, &conf); err != nil {
		t.Fatal(err)
	}
	last := conf.Plugins[len(conf.Plugins)-1]
	if last.Type != PluginName || last.Socket != "/run/cni.sock" || last.Registry != "/reg" {
		t.Errorf("the last plugin must be ours, since it holds the pod back: %s", raw)
	}
	if first := conf.Plugins[0]; first.Type != "ptp" || first.IPMasq || !strings.HasPrefix(first.IPAM.DataDir, l.Data) {
		t.Errorf("the first plugin is not the cable: %s", raw)
	}
}
