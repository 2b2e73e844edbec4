package netpol

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sublet.dev/isolation/reach"
)

// mark precedes a probe's number at the end of its packet.
const mark = 0x5ab1e7ed

var numbers = map[reach.Proto]int{reach.ICMP: unix.IPPROTO_ICMP, reach.TCP: unix.IPPROTO_TCP, reach.UDP: unix.IPPROTO_UDP,
	"GRE": unix.IPPROTO_GRE, "SCTP": unix.IPPROTO_SCTP}

// probeNumber reads the number of a probe out of what follows its IP header. An
// ICMP message counts only as what was sent, an echo request: errors and replies
// repeat what they are about.
func probeNumber(proto int, b []byte) (uint32, bool) {
	if proto == unix.IPPROTO_ICMP && (len(b) == 0 || b[0] != 8) {
		return 0, false
	}
	if len(b) < 8 || binary.BigEndian.Uint32(b[len(b)-8:]) != mark {
		return 0, false
	}
	return binary.BigEndian.Uint32(b[len(b)-4:]), true
}

// packet makes the first packet of a flow as raw IPv4. Each number has a source
// port of its own, so that no probe belongs to another's connection.
func packet(f reach.Flow, number uint32) []byte {
	body := transport(f, number)
	b := make([]byte, 20, 20+len(body))
	b[0], b[8], b[9] = 0x45, 64, byte(numbers[f.Proto])
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(body)))
	copy(b[12:], f.Source.AsSlice())
	copy(b[16:], f.To.Addr().AsSlice())
	return append(b, body...)
}

func transport(f reach.Flow, number uint32) []byte {
	tail := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, mark), number)
	source := uint16(20000 + number%40000)
	switch f.Proto {
	case reach.UDP:
		b := make([]byte, 8)
		binary.BigEndian.PutUint16(b, source)
		binary.BigEndian.PutUint16(b[2:], f.To.Port())
		binary.BigEndian.PutUint16(b[4:], uint16(8+len(tail)))
		return append(b, tail...)
	case reach.TCP: // a SYN that carries data, as TCP Fast Open has it
		b := make([]byte, 20)
		binary.BigEndian.PutUint16(b, source)
		binary.BigEndian.PutUint16(b[2:], f.To.Port())
		binary.BigEndian.PutUint32(b[4:], number)
		b[12], b[13] = 5<<4, 2
		binary.BigEndian.PutUint16(b[14:], 1024)
		b = append(b, tail...)
		pseudo := append(append(f.Source.AsSlice(), f.To.Addr().AsSlice()...), 0, unix.IPPROTO_TCP, 0, byte(len(b)))
		binary.BigEndian.PutUint16(b[16:], checksum(append(pseudo, b...)))
		return b
	case reach.ICMP:
		b := make([]byte, 8)
		b[0] = 8
		binary.BigEndian.PutUint16(b[4:], source)
		b = append(b, tail...)
		binary.BigEndian.PutUint16(b[2:], checksum(b))
		return b
	case "SCTP": // an INIT without options: connection tracking takes nothing less
		b := make([]byte, 12)
		binary.BigEndian.PutUint16(b, source)
		binary.BigEndian.PutUint16(b[2:], f.To.Port())
		return append(b, tail...)
	}
	return append([]byte{0, 0, 8, 0}, tail...) // GRE
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		word := uint32(b[i]) << 8
		if i+1 < len(b) {
			word |= uint32(b[i+1])
		}
		sum += word
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// send sends packets from a namespace, and from one CPU: what a thread sends on
// one CPU arrives in its order, so a last packet that arrives tells that all
// before it have arrived or never will.
func send(ns netns.NsHandle, l *lab, packets [][]byte) {
	l.t.Helper()
	inside(l.t, ns, func() error {
		var one unix.CPUSet
		one.Set(0)
		if err := unix.SchedSetaffinity(0, &one); err != nil {
			return fmt.Errorf("stay on one CPU: %w", err)
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, p := range packets {
			to := &unix.SockaddrInet4{Addr: [4]byte(p[16:20])}
			if err := unix.Sendto(fd, p, 0, to); err != nil {
				dst, _ := netip.AddrFromSlice(p[16:20])
				return fmt.Errorf("send to %s: %w", dst, err)
			}
		}
		return nil
	})
}
