package frontdoor

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

var errGone = errors.New("the client has gone")

// gone says whether a client has closed its connection, at least its half of it: nobody
// does so before TLS has begun who still wants something. What it has sent is not read.
func gone(client net.Conn) bool {
	c, ok := client.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return true // it is closed here
	}
	var closed bool
	err = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		closed = err == nil && info.State != unix.BPF_TCP_ESTABLISHED
	})
	return err != nil || closed
}
