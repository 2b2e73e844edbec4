// Package tail keeps what the code under test logs out of the way of what its
// tests say. Upstream's libraries log hundreds of lines when a control plane starts
// and stops; they explain nothing unless a test failed, and then only the last of
// them do.
//
//	klog, slog.Default --> the last lines, in memory --> standard error, if a test failed
//
// It never holds back what a test itself says, nor what a process writes that it
// starts.
package tail

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"k8s.io/klog/v2"
)

// keep is how many lines are shown, and width how many bytes of each.
const keep, width = 40, 400

// Tests is what [testing.M] is: something that runs tests and returns an exit code.
type Tests interface{ Run() int }

// Main runs a package's tests and returns their exit code; TestMain must call it.
func Main(m Tests) int {
	lines := &lines{}
	logger := slog.New(slog.NewTextHandler(lines, nil))
	slog.SetDefault(logger)
	klog.SetSlogLogger(logger)
	code := m.Run()
	if code != 0 {
		fmt.Fprintf(os.Stderr, "the last lines that were logged:\n%s", lines.text())
	}
	return code
}

// lines is the last lines that were written to it. Its methods may be called
// concurrently.
type lines struct {
	mu   sync.Mutex
	last [keep][]byte // a ring
	next int
}

// Write takes a line.
func (l *lines) Write(p []byte) (int, error) {
	line := bytes.TrimRight(p, "\n")
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last[l.next] = append(l.last[l.next][:0], line[:min(len(line), width)]...)
	l.next = (l.next + 1) % keep
	return len(p), nil
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b bytes.Buffer
	for i := range keep {
		if line := l.last[(l.next+i)%keep]; len(line) > 0 {
			fmt.Fprintf(&b, "  %s\n", line)
		}
	}
	return b.String()
}
