package node

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// KubeletPort is where a node answers its API server: the kubelet itself on
// loopback, the agent's front on the node's address.
const KubeletPort = 10250

// Machine is what was found out about the machine, once, at start.
type Machine struct {
	Kernel string `json:"kernel"`
	// CgroupV2 is true when all controllers are in the unified hierarchy.
	CgroupV2 bool `json:"cgroupV2"`
	// SysResource is true when this process may lower OOM scores and raise limits.
	SysResource bool `json:"sysResource"`
	// AppArmor is true when the kernel confines containers by AppArmor profiles.
	AppArmor bool `json:"appArmor"`
	CPUs     int  `json:"cpus"`
}

// Detect finds out what the machine can do. It changes nothing.
func Detect() (Machine, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return Machine{}, fmt.Errorf("read the kernel's version: %w", err)
	}
	caps, err := effectiveCapabilities()
	if err != nil {
		return Machine{}, err
	}
	groups, err := findCgroups()
	if err != nil {
		return Machine{}, err
	}
	armor, _ := os.ReadFile("/sys/module/apparmor/parameters/enabled") // absent: not built in
	_, parser := exec.LookPath("apparmor_parser")
	return Machine{
		Kernel:      unix.ByteSliceToString(u.Release[:]),
		CgroupV2:    groups.v2,
		SysResource: caps&(1<<unix.CAP_SYS_RESOURCE) != 0,
		AppArmor:    strings.HasPrefix(string(armor), "Y") && parser == nil,
		CPUs:        cpus(),
	}, nil
}

// LogValue implements [slog.LogValuer]: what was found, and what follows.
func (m Machine) LogValue() slog.Value {
	group, oom := "v1: kubelet told to accept it", "as they are"
	if m.CgroupV2 {
		group = "v2"
	}
	if m.SysResource {
		oom = "lowered for the node's daemons"
	}
	return slog.GroupValue(
		slog.String("kernel", m.Kernel),
		slog.String("cgroup", group),
		slog.Bool("capSysResource", m.SysResource),
		slog.String("oomScores", oom),
		slog.Bool("appArmor", m.AppArmor),
		slog.Int("cpus", m.CPUs),
	)
}

// effectiveCapabilities returns CapEff of capabilities(7).
func effectiveCapabilities() (uint64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, fmt.Errorf("read this process's capabilities: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			return strconv.ParseUint(strings.TrimSpace(v), 16, 64)
		}
	}
	return 0, errors.New("read this process's capabilities: /proc/self/status has no CapEff")
}

func cpus() int {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return 1
	}
	return set.Count()
}

// DNSPort is where the node's DNS listens on the node's address; the fence leads
// each tenant's DNS address there.
const DNSPort = 10053

// Check returns an error that says what to do when this machine cannot be a node
// now: not root, binaries missing, or a port taken. A node that runs already takes
// the ports, so Check is for starting only.
func Check(l Layout, ip netip.Addr) error {
	if os.Geteuid() != 0 {
		return errors.New("a node must be run as root: containers need namespaces, cgroups and mounts")
	}
	for _, b := range binaries() {
		file, err := os.Stat(l.bin(b))
		if err != nil {
			return fmt.Errorf("%s is missing in %s: run `make deps`, or say with --bin-dir where the node's binaries are", b, l.Bin)
		}
		if !file.Mode().IsRegular() || file.Mode()&0o100 == 0 && filepath.Ext(b) != ".tar" {
			return fmt.Errorf("%s in %s is not a program that can be run: run `make deps`, or say with --bin-dir where the node's binaries are", b, l.Bin)
		}
	}
	for _, tool := range []string{"nft", "conntrack", "mount", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("the command %s is missing: run `make deps`, or install the packages of deploy/deps/versions.sh", tool)
		}
	}
	for _, at := range []netip.AddrPort{
		netip.AddrPortFrom(ip, KubeletPort), netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), KubeletPort),
		netip.AddrPortFrom(ip, DNSPort),
	} {
		if err := free(at); err != nil {
			return err
		}
	}
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, DNSPort)))
	if err != nil {
		return explainListen(err, netip.AddrPortFrom(ip, DNSPort))
	}
	return udp.Close()
}

// free says whether an address can be listened on.
func free(at netip.AddrPort) error {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	if err != nil {
		return explainListen(err, at)
	}
	return l.Close()
}

// explainListen says what to do when an address cannot be listened on.
func explainListen(err error, at netip.AddrPort) error {
	switch {
	case errors.Is(err, unix.EADDRINUSE) && at.Port() == DNSPort:
		return fmt.Errorf("%s, where the node's DNS listens, is taken by another program, or another node's agent runs on this machine; stop it first", at)
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("%s is taken: another kubelet, or another node's agent, runs on this machine; stop it first", at)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("%s is not an address of this machine: give one with --node-ip", at.Addr())
	}
	return fmt.Errorf("listen on %s: %w", at, err)
}

// DefaultIP returns the address that this machine uses towards the internet, or
// else its first global one: what a node is known under unless told otherwise.
func DefaultIP() (netip.Addr, error) {
	// Nothing is sent: connecting a datagram socket only asks the routes.
	// 192.0.2.1 is of TEST-NET-1 (RFC 5737).
	if c, err := net.Dial("udp4", "192.0.2.1:9"); err == nil {
		defer c.Close()
		if a, ok := c.LocalAddr().(*net.UDPAddr); ok {
			return a.AddrPort().Addr().Unmap(), nil
		}
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("list this machine's addresses: %w", err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && p.Addr().IsGlobalUnicast() {
			return p.Addr(), nil
		}
	}
	return netip.Addr{}, errors.New("this machine has no IPv4 address but loopback: give one with --node-ip")
}
