// Command canary is what the audit and the tests run inside a pod to see what a
// pod can do there:
//
//	canary sleep                         waits until it is told to end
//	canary dial tcp|udp HOST:PORT [TIMEOUT]
//	canary http URL [TIMEOUT]            one GET
//	canary resolve NAME [TIMEOUT]
//	canary serve [ADDRESS]               HTTP and UDP echo on one port, ":8080" by default
//	canary uname                         the kernel that the pod sees
//	canary dmesg                         its first messages
//	canary caps                          its capabilities, user map and seccomp mode
//
// Every probe prints one line of JSON with ok, error and ms, and what it found; it
// exits with 0 when it could find out, also when the answer is no. 2 is misuse.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// result is the line that a probe prints.
type result struct {
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
	// MS is how long the probe took, in milliseconds.
	MS     int64  `json:"ms"`
	Output string `json:"output,omitempty"`
	// Status is the answer's code, of http.
	Status int `json:"status,omitempty"`
	// Addresses are what a name stands for, of resolve.
	Addresses []string `json:"addresses,omitempty"`
}

// probe tries something once.
type probe func(ctx context.Context, args []string) (result, error)

var probes = map[string]struct {
	args int
	run  probe
}{
	"dial":    {2, dial},
	"http":    {1, get},
	"resolve": {1, resolve},
	"uname":   {0, uname},
	"dmesg":   {0, dmesg},
	"caps":    {0, caps},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string) int {
	command := "sleep"
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	switch command {
	case "sleep":
		<-ctx.Done()
		return 0
	case "serve":
		return serveCommand(ctx, args)
	}
	p, known := probes[command]
	if !known || len(args) < p.args || len(args) > p.args+1 {
		return misuse("usage: canary sleep | serve [ADDRESS] | dial tcp|udp HOST:PORT [TIMEOUT] | http URL [TIMEOUT] | resolve NAME [TIMEOUT] | uname | dmesg | caps")
	}
	timeout := 3 * time.Second
	if len(args) > p.args {
		var err error
		if timeout, err = time.ParseDuration(args[p.args]); err != nil {
			return misuse(err.Error())
		}
	}
	return report(ctx, timeout, args, p.run)
}

// report runs p within timeout and prints its result.
func report(ctx context.Context, timeout time.Duration, args []string, p probe) int {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	begun := time.Now()
	r, err := p(ctx, args)
	r.OK, r.MS = err == nil, time.Since(begun).Milliseconds()
	if err != nil {
		r.Error = err.Error()
	}
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		return misuse(err.Error())
	}
	return 0
}

func misuse(message string) int {
	fmt.Fprintln(os.Stderr, "canary:", message)
	return 2
}
