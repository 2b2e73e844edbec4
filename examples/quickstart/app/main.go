// Command app is the program in the quickstart's image: a two-tier web
// application and the few tools that one wants inside its containers.
//
//	app web       answers HTTP on :8080: greets, and counts visits in the second tier
//	app counter   the second tier: counts on :9090 for who knows the password
//	app visit URL [N]   gets URL N times (default 1) and prints the last answer
//	app dial HOST:PORT  opens a TCP connection, says whether that worked
//	app uname, app dmesg   what kernel this container sees
//	app idmap              which user ids it has outside (proc(5), uid_map)
//	app tar ...   the part of tar that `kubectl cp` calls in a container
//
// Under the name of a tool (as a link in the image makes it) it is that tool. It
// keeps no state outside its memory and needs no rights.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	args := os.Args
	if name := filepath.Base(args[0]); name != "app" {
		args = append([]string{"app", name}, args[1:]...)
	}
	if err := run(ctx, args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	commands := map[string]func(context.Context, []string) error{
		"web":     web,
		"counter": counter,
		"visit":   visit,
		"dial":    dial,
		"uname":   uname,
		"dmesg":   dmesg,
		"idmap":   idmap,
		"tar":     tarTool,
	}
	if len(args) == 0 || commands[args[0]] == nil {
		return fmt.Errorf("usage: app web | counter | visit URL [N] | dial HOST:PORT | uname | dmesg | idmap | tar")
	}
	return commands[args[0]](ctx, args[1:])
}
