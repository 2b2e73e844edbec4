package audit

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sublet.dev/isolation/tenant"
)

// local runs the real canary on this machine instead of in a pod.
type local struct{ binary string }

func (l local) Run(ctx context.Context, _, _ string, command []string) (string, error) {
	var out bytes.Buffer
	c := exec.CommandContext(ctx, l.binary, command[1:]...)
	c.Stdout = &out
	err := c.Run()
	return out.String(), err
}

func realCanary(t *testing.T) local {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "canary")
	if out, err := exec.Command("go", "build", "-o", binary, "sublet.dev/test/images/canary").CombinedOutput(); err != nil {
		t.Fatalf("build the canary: %v\n%s", err, out)
	}
	return local{binary}
}

func TestTryWithTheRealCanary(t *testing.T) {
	run := realCanary(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	target := dial("a listener", "127.0.0.1", port)
	if r, err := try(t.Context(), run, ObjectRef{}, target).Reply.Get(); err != nil || !r.OK {
		t.Errorf("a listener: %+v, %v", r, err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	if r, err := try(t.Context(), run, ObjectRef{}, target).Reply.Get(); err != nil || r.OK || r.Error == "" {
		t.Errorf("nobody: %+v, %v", r, err)
	}
	misuse := try(t.Context(), run, ObjectRef{}, dialBy("carrier-pigeon", "nobody", "127.0.0.1", port))
	if r, err := misuse.Reply.Get(); err == nil && r.OK {
		t.Errorf("an unknown network: %+v", r)
	}
	if said, err := said(t.Context(), run, ObjectRef{}, "uname").Get(); err != nil || !strings.Contains(said, "Linux") {
		t.Errorf("uname: %q, %v", said, err)
	}
}

type mute struct{ out string }

func (b mute) Run(context.Context, string, string, []string) (string, error) {
	return b.out, errors.New("exec failed")
}

// A canary that says nothing readable has not tried: that is no denial.
func TestNoReplyIsUnknown(t *testing.T) {
	for _, out := range []string{"", "null", "refused", "{", "[]"} {
		for _, err := range []error{nil, errTest} {
			if r, got := readReply(out, err).Get(); got == nil {
				t.Errorf("readReply(%q, %v) = %+v, want an error", out, err, r)
			}
		}
	}
	if r, err := readReply(`{"ok":false,"error":"i/o timeout","ms":2000}`+"\n", errTest).Get(); err != nil || r.OK || r.Millis != 2000 {
		t.Errorf("a reply beside an exit code: %+v, %v", r, err)
	}
}

// stations of the audited tenant and of a stranger, with distinct addresses.
func stations() (here, stranger station) {
	here = station{tenant: acme(), prober: canary{ObjectRef{Name: "p"}, "node-1", "10.244.0.8"}, peer: canary{ObjectRef{Name: "q"}, "node-1", "10.244.0.9"}}
	stranger = station{tenant: globex(), prober: canary{ObjectRef{Name: "sp"}, "node-1", "10.244.0.18"}, peer: canary{ObjectRef{Name: "sq"}, "node-1", "10.244.0.19"}}
	return here, stranger
}

// Every list has the addresses it is about, tried by the right canary.
func TestProbeTriesTheRightThings(t *testing.T) {
	here, stranger := stations()
	run := mute{`{"ok":true}`}
	p := probeFirst(t.Context(), run, here)
	probeRest(t.Context(), run, &p, here, Known(stranger), []target{dial("the kubelet", nodeIP, kubeletPort)})
	for name, c := range map[string]struct {
		got  []Attempt
		from string
		want []string
	}{
		"controls":         {p.Controls, "p", []string{"10.244.0.9:8080/tcp", "10.244.0.9:8080/udp", "10.96.4.1:443/tcp", "10.96.4.10"}},
		"stranger":         {p.Stranger, "p", []string{"10.244.0.19:8080/tcp", "10.244.0.19:8080/udp"}},
		"stranger's API":   {p.StrangerAPI, "p", []string{"10.96.8.1:443/tcp", nodeIP + ":31002/tcp"}},
		"metadata":         {p.Metadata, "p", []string{"169.254.169.254:80/tcp", "100.100.100.200:80/tcp", "168.63.129.16:80/tcp"}},
		"host":             {p.Host, "p", []string{nodeIP + ":10250/tcp"}},
		"inbound":          {p.Inbound, "sp", []string{"10.244.0.9:8080/tcp", "10.244.0.9:8080/udp", "10.244.0.8:8080/tcp", "10.244.0.8:8080/udp"}},
		"inbound controls": {p.InboundControls, "sp", []string{"10.244.0.19:8080/tcp", "10.244.0.19:8080/udp", "10.96.8.1:443/tcp"}},
	} {
		var got []string
		for _, a := range c.got {
			got = append(got, a.Address)
			if a.From.Name != c.from {
				t.Errorf("%s: %s was tried by %s, not %s", name, a.Address, a.From.Name, c.from)
			}
		}
		if strings.Join(got, " ") != strings.Join(c.want, " ") {
			t.Errorf("%s: tried %v, want %v", name, got, c.want)
		}
	}
	if cidr, _ := slice(acme()); p.APIAddress != tenant.APIAddress(cidr).String() {
		t.Errorf("API address %q", p.APIAddress)
	}
}

// Without a stranger the rest is tried, and what needs one is inconclusive.
func TestProbeWithoutAStranger(t *testing.T) {
	here, _ := stations()
	f := good()
	run := mute{`{"ok":false,"error":"x"}`}
	p := probeFirst(t.Context(), run, here)
	probeRest(t.Context(), run, &p, here, Unknown[station](errTest), nil)
	f.Probes = Known(p)
	for _, c := range probeChecks() {
		if o := c.Eval(f); o.Status != Error {
			t.Errorf("%s: %s", c.ID, o.Status)
		}
	}
}
