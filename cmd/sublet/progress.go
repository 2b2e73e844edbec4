package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// progress tells a waiting user what is waited for: on a terminal in one line that
// moves, elsewhere a line for each change. It is not safe for concurrent use.
type progress struct {
	w     io.Writer
	tty   bool
	color bool
	last  string
	step  int
	begun time.Time
}

func newProgress(w io.Writer) *progress {
	f, ok := w.(*os.File)
	tty := ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
	return &progress{w: w, tty: tty, color: tty && os.Getenv("NO_COLOR") == "", begun: time.Now()}
}

// say shows the state. It may be called often with the same one.
func (p *progress) say(state string) {
	state = printable(state)
	if !p.tty {
		if state != p.last {
			fmt.Fprintln(p.w, state)
		}
		p.last = state
		return
	}
	p.last = state
	frames := []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")
	mark := string(frames[p.step%len(frames)])
	p.step++
	if p.color {
		mark = "\x1b[36m" + mark + "\x1b[0m"
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s %s (%.0fs)", mark, state, time.Since(p.begun).Seconds())
}

// done removes the moving line.
func (p *progress) done() {
	if p.tty && p.last != "" {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
	p.last = ""
}
