package netpol

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"sublet.dev/host-agent/podnet"
	"sublet.dev/isolation/reach"
	"sublet.dev/isolation/tenant"
)

// warning is what the fence says of a change by somebody else.
type warning struct {
	Level            string
	Missing, Foreign []string
	Err              string
}

// kept starts what Run keeps the table with. tick makes it look, and returns once
// it has done what it found.
func (l *lab) kept(e *Enforcer) (tick func()) {
	l.t.Helper()
	ctx, cancel := context.WithCancel(l.t.Context())
	ticks, done := make(chan time.Time), make(chan struct{})
	go func() {
		defer close(done)
		inside(l.t, l.node, func() error { e.keep(ctx, ticks); return nil })
	}()
	l.t.Cleanup(func() { cancel(); <-done })
	return func() {
		ticks <- time.Time{}
		ticks <- time.Time{} // taken when the first one is done with
	}
}

// lines returns what the kernel has.
func (l *lab) lines(e *Enforcer) (lines []string) {
	l.t.Helper()
	inside(l.t, l.node, func() (err error) { lines, err = readLines(l.t.Context(), e.kernel); return err })
	return lines
}

// Whatever somebody does to the table by hand, it is put back without any event,
// and the log says what was changed.
func TestHeals(t *testing.T) {
	l := newLab(t, internet, "169.254.169.254")
	e, r := l.enforcer()
	e.world = knownWorld()
	var log bytes.Buffer
	e.Logger = slog.New(slog.NewJSONHandler(&log, nil))
	l.attach(e, r, "a1", tenant.HostNamespace("a", "a"), podA1)
	l.attach(e, r, "b1", tenant.HostNamespace("b", "b"), podB)
	metadata := reach.Flow{Sender: addr(podA1), Source: addr(podA1), To: at("169.254.169.254:80"), Proto: reach.TCP}
	toB := reach.Flow{Sender: addr(podA1), Source: addr(podA1), To: at(podB + ":80"), Proto: reach.TCP}
	intact, tick := l.lines(e), l.kept(e)
	prefix := "t_" + tenant.ID("a").Short()
	for name, c := range map[string]struct {
		by   string     // input of nft; HANDLE stands for that of the rule about blocked addresses
		open reach.Flow // what goes through then
		lost string     // part of a line that is logged as missing
		more string     // and as foreign
	}{
		"table deleted":   {"delete table inet sublet", metadata, "", ""},
		"table emptied":   {"flush table inet sublet", metadata, "iifname @interfaces goto source", ""},
		"table asleep":    {"add table inet sublet { flags dormant; }", metadata, "", "dormant"},
		"rule deleted":    {"delete rule inet sublet " + prefix + "_out handle HANDLE", metadata, "ip daddr @blocked", ""},
		"rule inserted":   {"insert rule inet sublet boundary accept", toB, "", "chain boundary rule accept"},
		"rule repeated":   {"insert rule inet sublet boundary ct state established,related accept", reach.Flow{}, "", "ct state established,related accept"},
		"element removed": {"delete element inet sublet blocked { 169.254.0.0/16 }", metadata, "set blocked element 169.254.0.0/16", ""},
		"element added":   {fmt.Sprintf("add element inet sublet %s_pods { %s }\nadd element inet sublet t_%s_pods { %s }", prefix, podB, tenant.ID("b").Short(), podA1), toB, "", podB},
		"chain added":     {"add chain inet sublet early { type filter hook forward priority -300; }\nadd rule inet sublet early accept", reach.Flow{}, "", "early"},
	} {
		t.Run(name, func(t *testing.T) {
			log.Reset()
			l.nft(strings.ReplaceAll(c.by, "HANDLE", l.handle(prefix+"_out", "@blocked")) + "\n")
			if c.open.Proto != "" {
				l.expect([]reach.Flow{c.open}, true)
			}
			tick()
			l.expect([]reach.Flow{metadata, toB}, false, false)
			if got := l.lines(e); !slices.Equal(got, intact) {
				t.Errorf("not put back: missing %q, foreign %q", missing(intact, got), missing(got, intact))
			}
			var w warning
			if err := json.Unmarshal(log.Bytes(), &w); err != nil || w.Level != "WARN" { // one line alone
				t.Fatalf("%v: the log is\n%s", err, log.String())
			}
			if !strings.Contains(strings.Join(w.Missing, "\n"), c.lost) || !strings.Contains(strings.Join(w.Foreign, "\n"), c.more) {
				t.Errorf("the log is\n%s", log.String())
			}
			if name == "table deleted" && w.Err == "" || name == "rule deleted" && (len(w.Missing) != 1 || len(w.Foreign) != 0) {
				t.Errorf("the log is\n%s", log.String())
			}
		})
	}
}

// handle returns nft's number of the rule of a chain that has a text.
func (l *lab) handle(chain, text string) (handle string) {
	l.t.Helper()
	inside(l.t, l.node, func() error {
		out, err := exec.Command("nft", "--handle", "list", "chain", "inet", TableName, chain).Output()
		for line := range strings.Lines(string(out)) {
			if before, after, ok := strings.Cut(line, " # handle "); ok && strings.Contains(before, text) {
				handle = strings.TrimSpace(after)
			}
		}
		return err
	})
	return handle
}

// Nothing is read, replaced or said when others change tables of their own.
func TestOthersTablesAreNoChange(t *testing.T) {
	l := newLab(t)
	e, r := l.enforcer()
	e.world = knownWorld()
	var log bytes.Buffer
	e.Logger = slog.New(slog.NewJSONHandler(&log, nil))
	l.attach(e, r, "a1", tenant.HostNamespace("a", "a"), podA1)
	tick := l.kept(e)
	before := e.generation
	tick()
	if e.generation != before {
		t.Error("the table was replaced without need")
	}
	l.nft("add table inet other\nadd chain inet other c\nadd rule inet other c accept\n")
	tick()
	if log.Len() > 0 {
		t.Errorf("the log is\n%s", log.String())
	}
	inside(t, l.node, func() error {
		now, err := generation()
		if e.generation != now || now == before {
			t.Errorf("compared at generation %d, the kernel is at %d, was at %d", e.generation, now, before)
		}
		return err
	})
}

// What went through while the fence was down does not go on as established.
func TestConnectionsOfAGapEnd(t *testing.T) {
	l := newLab(t, internet)
	e, r := l.enforcer()
	e.world = knownWorld()
	l.attach(e, r, "a1", tenant.HostNamespace("a", "a"), podA1)
	l.attach(e, r, "b1", tenant.HostNamespace("b", "b"), podB)
	l.nft("table inet other { chain c { type filter hook forward priority 0; ct state new accept; }; }\n") // as kube-proxy's: the kernel tracks connections without us
	l.nft("delete table inet sublet\n")
	l.expect([]reach.Flow{{Sender: addr(podA1), Source: addr(podA1), To: at(podB + ":80"), Proto: reach.UDP}}, true)
	known := func() string {
		t.Helper()
		var out []byte
		inside(t, l.node, func() (err error) {
			out, err = exec.Command("conntrack", "-L", "-s", podA1, "-d", podB).Output()
			return err
		})
		return string(out)
	}
	if known() == "" {
		t.Fatal("the kernel knows no connection: nothing to forget")
	}
	inside(t, l.node, func() error { return e.Sync(t.Context()) })
	if left := known(); left != "" {
		t.Errorf("left: %s", left)
	}
}

// As long as the table can't be read no pod is attached; afterwards all is well
// without anybody's help.
func TestUnreadableFenceAttachesNobody(t *testing.T) {
	l := newLab(t, internet, "169.254.169.254")
	e, r := l.enforcer()
	e.world = knownWorld()
	a := tenant.HostNamespace("a", "a")
	l.attach(e, r, "a1", a, podA1)
	tick := l.kept(e)
	link := l.pod(podA2)
	e.world.know(a, "a2")
	second := podnet.Endpoint{ContainerID: "a2", Namespace: a, Pod: "a2", Interface: link, Addresses: []netip.Addr{addr(podA2)}}
	l.nft("flush table inet sublet\n")
	t.Run("while it can't", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir()) // without nft
		tick()
		if e.applied.Name != "" {
			t.Error("a table that can't be read is taken for what was put there")
		}
		inside(t, l.node, func() error {
			if err := first(r.Put(second), e.Sync(t.Context())); err == nil {
				t.Error("a pod was attached")
			}
			return r.Delete(second.ContainerID)
		})
	})
	tick()
	l.expect([]reach.Flow{{Sender: addr(podA1), Source: addr(podA1), To: at("169.254.169.254:80"), Proto: reach.TCP}}, false)
	inside(t, l.node, func() error { return first(r.Put(second), e.Sync(t.Context())) })
}
