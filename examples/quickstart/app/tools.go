package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// visit gets args[0] args[1] times and prints the last answer.
func visit(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("usage: app visit URL [N]")
	}
	n := 1
	if len(args) > 1 {
		var err error
		if n, err = strconv.Atoi(args[1]); err != nil || n < 1 {
			return fmt.Errorf("%q is no number of visits", args[1])
		}
	}
	var last string
	for range n {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, args[0], nil)
		if err != nil {
			return err
		}
		if last, err = do(req); err != nil {
			return err
		}
	}
	fmt.Print(last)
	return nil
}

// dial opens a TCP connection to args[0] within two seconds.
func dial(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: app dial HOST:PORT")
	}
	d := net.Dialer{Timeout: 2 * time.Second}
	conn, err := d.DialContext(ctx, "tcp", args[0])
	if err != nil {
		return err
	}
	fmt.Println("connected to", conn.RemoteAddr())
	return conn.Close()
}

// uname prints what the kernel calls itself.
func uname(context.Context, []string) error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	for _, f := range [][65]byte{u.Sysname, u.Nodename, u.Release, u.Version, u.Machine} {
		fmt.Printf("%s ", bytes.TrimRight(f[:], "\x00"))
	}
	fmt.Println()
	return nil
}

// dmesg prints the kernel's log, as far as this container may read it.
func dmesg(context.Context, []string) error {
	buf := make([]byte, 1<<18)
	n, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, buf)
	if err != nil {
		return fmt.Errorf("read the kernel's log: %w", err)
	}
	_, err = os.Stdout.Write(buf[:n])
	return err
}

// idmap prints the user namespace's map of user ids.
func idmap(context.Context, []string) error {
	b, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(b)
	return err
}
