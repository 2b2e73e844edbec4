package netpol

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sublet.dev/isolation/reach"
)

// A lab is a node, pods and the rest of the world, each in a network namespace
// without name that ends with the test: nothing outside of them is touched.
//
//	pod eth0 ---- vethX node eth0 192.0.2.1/24 ---- eth0 192.0.2.254/24 world
//
// as the ptp plugin makes them: the pod's address is a /32, its gateway stands on
// the node's end of the cable.
type lab struct {
	t           *testing.T
	node, world netns.NsHandle
	pods        map[netip.Addr]netns.NsHandle
	sockets     []socket
	sent        uint32     // the number of the last probe
	last        netip.Addr // the pod that sends the last one, which is always allowed; podA1 if none
}

const (
	nodeIP  = "192.0.2.1"
	worldIP = "192.0.2.254"
	gateway = "10.244.0.1"
	// balancer is an address that a load balancer has led to the node.
	balancer = "203.0.113.80"
)

// protocols are those that probes use: ICMP, TCP, UDP, GRE, SCTP.
var protocols = []int{unix.IPPROTO_ICMP, unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_GRE, unix.IPPROTO_SCTP}

// inside runs f in a network namespace, on a thread that ends with it.
func inside(t *testing.T, ns netns.NsHandle, f func() error) {
	t.Helper()
	errs := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := netns.Set(ns)
		if err == nil {
			err = f()
		}
		errs <- err
	}()
	if err := <-errs; err != nil {
		t.Fatal(err)
	}
}

// newNamespace makes a namespace that lives until the test ends.
func newNamespace(t *testing.T) netns.NsHandle {
	t.Helper()
	made := make(chan netns.NsHandle, 1)
	errs := make(chan error)
	go func() {
		runtime.LockOSThread()
		ns, err := netns.New()
		made <- ns
		errs <- err
	}()
	if err := <-errs; err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	ns := <-made
	t.Cleanup(func() { _ = ns.Close() })
	inside(t, ns, func() error { return up("lo") })
	return ns
}

func up(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// newLab lays the wire. Each of the world's addresses is somebody's there.
func newLab(t *testing.T, worldAddresses ...string) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	l := &lab{t: t, node: newNamespace(t), world: newNamespace(t), pods: map[netip.Addr]netns.NsHandle{}}
	inside(t, l.node, func() error {
		if err := cable("eth0", "eth0", l.world); err != nil {
			return err
		}
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
			return err
		}
		return first(address4("eth0", nodeIP+"/24"), up("eth0"), route("0.0.0.0/0", worldIP, "eth0"))
	})
	inside(t, l.world, func() error {
		err := first(address4("eth0", worldIP+"/24"), up("eth0"), route("10.244.0.0/16", nodeIP, "eth0"), route("10.96.0.0/12", nodeIP, "eth0"), route(balancer+"/32", nodeIP, "eth0"))
		for _, a := range worldAddresses {
			err = first(err, address4("lo", a+"/32"))
		}
		return err
	})
	l.listen(l.node)
	l.listen(l.world)
	l.await(nodeIP, worldIP)
	return l
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// cable makes a pair of interfaces, one here and one in another namespace.
func cable(here, there string, other netns.NsHandle) error {
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: there, PeerNamespace: netlink.NsFd(other)}
	veth.Name = here
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("lay a cable %s - %s: %w", here, there, err)
	}
	return nil
}

func address4(link, cidr string) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(cidr)
	if err != nil {
		return err
	}
	return netlink.AddrAdd(l, a)
}

// route leads to a range by a gateway, or directly when it is "".
func route(to, by, link string) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return err
	}
	_, dst, err := net.ParseCIDR(to)
	if err != nil {
		return err
	}
	r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: dst, Scope: netlink.SCOPE_LINK}
	if by != "" {
		r.Gw, r.Scope = net.ParseIP(by), netlink.SCOPE_UNIVERSE
	}
	if err := netlink.RouteAdd(r); err != nil {
		return fmt.Errorf("route %s: %w", to, err)
	}
	return nil
}

// pod plugs a pod in and returns its interface on the node.
func (l *lab) pod(address string) string {
	l.t.Helper()
	ip, veth := netip.MustParseAddr(address), fmt.Sprintf("veth%d", len(l.pods))
	ns := newNamespace(l.t)
	inside(l.t, l.node, func() error {
		return first(cable(veth, "eth0", ns), up(veth), address4(veth, gateway+"/32"), route(address+"/32", "", veth))
	})
	inside(l.t, ns, func() error {
		return first(address4("eth0", address+"/32"), up("eth0"), route(gateway+"/32", "", "eth0"), route("0.0.0.0/0", gateway, "eth0"))
	})
	l.pods[ip] = ns
	l.listen(ns)
	l.await(gateway, address)
	return veth
}

// await waits until the node's end of a cable works: the kernel activates the end
// that came up first some time after the other one has.
func (l *lab) await(from, to string) {
	l.t.Helper()
	for {
		l.sent++
		f := reach.Flow{Source: addr(from), To: netip.AddrPortFrom(addr(to), 9), Proto: reach.UDP}
		send(l.node, l, [][]byte{packet(f, l.sent)})
		if l.arrived()[l.sent] {
			return
		}
		if l.t.Context().Err() != nil {
			l.t.Fatalf("the cable to %s does not work", to)
		}
	}
}

// listen opens sockets that get every probe that the kernel delivers in a
// namespace.
func (l *lab) listen(ns netns.NsHandle) {
	l.t.Helper()
	inside(l.t, ns, func() error {
		for _, proto := range protocols {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, proto)
			if err != nil {
				return fmt.Errorf("listen for protocol %d: %w", proto, err)
			}
			l.t.Cleanup(func() { _ = unix.Close(fd) })
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20); err != nil {
				return fmt.Errorf("make room for probes: %w", err)
			}
			l.sockets = append(l.sockets, socket{fd, proto})
		}
		return nil
	})
}

// socket gets all packets of a protocol.
type socket struct{ fd, proto int }

// arrived empties the sockets and returns the numbers of the probes in them.
func (l *lab) arrived() map[uint32]bool {
	l.t.Helper()
	numbers := map[uint32]bool{}
	buf := make([]byte, 2048)
	for _, s := range l.sockets {
		for {
			n, _, err := unix.Recvfrom(s.fd, buf, 0)
			if err == unix.EAGAIN {
				break
			}
			if err != nil {
				l.t.Fatalf("read probes: %v", err)
			}
			header := int(buf[0]&0xf) * 4
			if number, ok := probeNumber(s.proto, buf[header:n]); ok {
				numbers[number] = true
			}
		}
	}
	return numbers
}
