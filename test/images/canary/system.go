package main

import (
	"context"
	"os"
	"strings"
	"syscall"
)

// uname says which kernel the pod sees.
func uname(context.Context, []string) (result, error) {
	var u syscall.Utsname
	if err := syscall.Uname(&u); err != nil {
		return result{}, err
	}
	return result{Output: strings.Join([]string{chars(u.Sysname), chars(u.Release), chars(u.Version), chars(u.Machine)}, " ")}, nil
}

// chars reads a C string.
func chars(c [65]int8) string {
	var b strings.Builder
	for _, v := range c {
		if v == 0 {
			break
		}
		b.WriteByte(byte(v))
	}
	return b.String()
}

// klogReadAll is SYSLOG_ACTION_READ_ALL of syslog(2).
const klogReadAll = 3

// dmesg reads the beginning of the kernel's log: gVisor's is its own.
func dmesg(context.Context, []string) (result, error) {
	b := make([]byte, 1<<16)
	n, err := syscall.Klogctl(klogReadAll, b)
	if err != nil {
		return result{}, os.NewSyscallError("syslog", err)
	}
	return result{Output: string(b[:min(n, 2048)])}, nil
}

// caps shows what the process may do, as the kernel writes it.
func caps(context.Context, []string) (result, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return result{}, err
	}
	var lines []string
	for _, line := range strings.Split(string(status), "\n") {
		for _, key := range []string{"Cap", "Uid", "Gid", "NoNewPrivs", "Seccomp:"} {
			if strings.HasPrefix(line, key) {
				lines = append(lines, strings.Join(strings.Fields(line), " "))
			}
		}
	}
	if users, err := os.ReadFile("/proc/self/uid_map"); err == nil {
		lines = append(lines, "uid_map: "+strings.Join(strings.Fields(string(users)), " "))
	}
	return result{Output: strings.Join(lines, "\n")}, nil
}
