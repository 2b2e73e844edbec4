package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// startAs starts a client under a policy of the kernel's scheduler (sched(7)). A cell's
// clients are on other machines, and what is measured is the cell, not how a small
// machine is shared with them. So a client that measures has a processor when it wants
// one (SCHED_FIFO): how long it would wait for one that the cell uses is not the cell's
// latency. One that floods has what is left (SCHED_IDLE), and is off a processor as soon
// as the cell wants that. A niceness does neither: whoever runs keeps the processor for
// a slice, which is longer than most requests.
//
// The policy is a thread's and goes on to what the thread starts, so it has to be there
// before the client: a Go program that changes its own changes one thread of many.
func startAs(c *exec.Cmd, policy uint32) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		attr := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: policy}
		if policy == unix.SCHED_FIFO {
			attr.Priority = 1
		}
		if err := unix.SchedSetAttr(0, attr, 0); err != nil {
			if policy == unix.SCHED_IDLE { // everybody may
				started <- fmt.Errorf("scheduling policy of a client: %w", err)
				return
			}
			fmt.Fprintln(os.Stderr, "density: not root: the time that the measuring client waits for a processor counts:", err)
		}
		started <- c.Start()
	}()
	return <-started
}
