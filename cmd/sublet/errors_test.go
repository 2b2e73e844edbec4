package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"unicode"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"sublet.dev/api/v1alpha1"
)

// Whatever keeps the host API from answering, the message says what to do.
func TestExplain(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		says string
	}{
		"nobody listens":  {&url.Error{Op: "Get", URL: "https://x", Err: syscall.ECONNREFUSED}, "is `sublet up` running?"},
		"another host":    {&url.Error{Op: "Get", URL: "https://x", Err: &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}}, "not for the host API that answers"},
		"expired key":     {apierrors.NewUnauthorized("no"), "restart `sublet up`, which writes it anew"},
		"a tenant's key":  {&meta.NoKindMatchError{GroupKind: schema.GroupKind{Group: v1alpha1.GroupVersion.Group}}, "not for a host API of Sublet"},
		"anything beside": {errors.New("as it is"), "as it is"},
	} {
		wrapped := fmt.Errorf("list: %w", c.err)
		if got := explain(wrapped); !strings.Contains(got.Error(), c.says) {
			t.Errorf("%s: %q does not say %q", name, got, c.says)
		}
	}
	for _, err := range []error{nil, context.Canceled, context.DeadlineExceeded} {
		if got := explain(err); got != err {
			t.Errorf("%v became %v", err, got)
		}
	}
}

// What tenants have chosen a part of reaches a terminal as text, whatever is in it, in
// tables, errors and progress; what is fit for one stays as it is.
func TestOnlyTextReachesTheTerminal(t *testing.T) {
	const good = "web \"x\" c:\\d häßlich 名前 💥"
	for name, bad := range map[string]string{
		"colour": "\x1b[31mred", "title": "\x1b]0;owned\x07", "8 bit": "\u009b2J", "not UTF-8": "a\x9b2J\xff", "line": "a\rb\nfake line", "column": "a\tb",
		"direction": "a\u202etxt.exe", "hidden": "a\u200bb", "erase": "abc\b\b\x7f",
	} {
		var out strings.Builder
		if err := table(&out, [][]string{{"NAME", "MESSAGE"}, {good, bad}}); err != nil {
			t.Fatal(err)
		}
		newProgress(&out).say(good + bad)
		fmt.Fprint(&out, printableLines(good+"\n"+strings.ReplaceAll(bad, "\n", "")+"\n"))
		lines := strings.Split(out.String(), "\n")
		if len(lines) != 6 || strings.Count(out.String(), good) != 3 {
			t.Errorf("%s: %q", name, out.String())
		}
		for _, r := range strings.Join(lines, "") {
			if !unicode.IsPrint(r) || r == utf8.RuneError {
				t.Errorf("%s: %q reaches the terminal in %q", name, r, out.String())
			}
		}
	}
}

// A closed terminal asks twice, by the kernel and by the shell: it ends a command
// in order, not in the middle of its end.
func TestClosedTerminal(t *testing.T) {
	// Whoever runs the tests may ignore SIGHUP; to listen to it once ends that.
	heard := make(chan os.Signal, 3)
	signal.Notify(heard, syscall.SIGHUP)
	defer signal.Stop(heard)
	ctx, stop := interruptible()
	defer stop()
	for range 3 {
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		<-heard // one that is on its way when nobody listens any more ends the process
		<-ctx.Done()
	}
}
