package server

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// output is a buffer that two goroutines use.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// Who follows a log sees every line once and in order, also when another file
// takes the place of the first.
func TestFollowAudit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	add := func(text string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out output
	done := make(chan error, 1)
	go func() { _, err := CopyAudit(ctx, &out, path, AuditQuery{Follow: true}); done <- err }()
	want := ""
	for _, text := range []string{"a\n", "b\n", "", "c\n", "d\n"} {
		if text == "" {
			if err := os.Rename(path, path+".1"); err != nil {
				t.Fatal(err)
			}
			continue
		}
		add(text)
		want += text
		err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
			return strings.Contains(out.String(), text), nil
		})
		if err != nil {
			t.Fatalf("%q is missing: %q", text, out.String())
		}
	}
	cancel()
	if err := <-done; err != nil || out.String() != want {
		t.Errorf("%q, want %q: %v", out.String(), want, err)
	}
}
