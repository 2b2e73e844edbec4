package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// mostTouched bounds what touchMemory takes; a phase of a second needs less.
const mostTouched = 2 << 30

// touchMemory takes memory from the machine and gives it back. A hypervisor takes
// away what a machine has not used for some seconds (free page reporting of
// virtio-balloon), and gives each page back at its next use, which then costs more
// than all else that is done with it: the files of a contender grow into such memory
// the faster the more it writes. So every phase of every contender begins with memory
// that is there.
func touchMemory() error {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return fmt.Errorf("how much memory is free: %w", err)
	}
	size := min(uint64(info.Freeram)*uint64(info.Unit)/4, mostTouched)
	taken, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_POPULATE)
	if err != nil {
		return fmt.Errorf("take memory: %w", err)
	}
	return unix.Munmap(taken)
}
