package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/tenant"
)

const (
	// dialTime is how long a canary waits for an answer: a fence that drops
	// gives none.
	dialTime = 2 * time.Second
	// parallelTries is how many attempts of one tenant's audit run at once.
	parallelTries = 8
)

// station is a tenant with its canaries in place.
type station struct {
	tenant v1alpha1.VirtualCluster
	// prober tries, peer is there to be reached.
	prober, peer canary
}

// canary is one running canary.
type canary struct {
	ref  ObjectRef
	node string
	ip   string
}

// target is something to try.
type target struct {
	to      string
	address string
	// command is what runs in the canary.
	command []string
}

func dial(to, host, port string) target { return dialBy("tcp", to, host, port) }

func dialBy(network, to, host, port string) target {
	address := net.JoinHostPort(host, port)
	return target{to: to, address: address + "/" + network, command: []string{canaryBinary, "dial", network, address, dialTime.String()}}
}

// both tries a canary by TCP and by UDP: it answers both.
func both(to, host string) []target {
	return []target{dialBy("tcp", to, host, canaryPort), dialBy("udp", to, host, canaryPort)}
}

// apiName is the name of the tenant's API in the tenant's DNS. The dot at its end
// keeps the resolver from trying others.
const apiName = "kubernetes.default.svc.cluster.local."

// metadataAddresses are where clouds serve the metadata of a machine, with its
// credentials: most of them, Alibaba's, and Azure's.
var metadataAddresses = []string{"169.254.169.254", "100.100.100.200", "168.63.129.16"}

// controls are what a station's prober must reach.
func (s station) controls() []target {
	out := both("the tenant's own pod", s.peer.ip)
	if cidr, err := slice(s.tenant); err == nil {
		out = append(out, dial("the tenant's own API", tenant.APIAddress(cidr).String(), "443"))
	}
	return out
}

// dns asks the tenant's DNS for the tenant's own API.
func (s station) dns() target {
	t := target{to: "the tenant's DNS", command: []string{canaryBinary, "resolve", apiName}}
	if cidr, err := slice(s.tenant); err == nil {
		t.address = tenant.DNSAddress(cidr).String()
	}
	return t
}

// pods and api are targets that only this station's tenant may reach.
func (s station) pods() []target { return both("another tenant's pod", s.peer.ip) }

func (s station) api() []target {
	var out []target
	if cidr, err := slice(s.tenant); err == nil {
		out = append(out, dial("another tenant's API", tenant.APIAddress(cidr).String(), "443"))
	}
	if a := s.tenant.Status.APIAddress; a != "" {
		out = append(out, dial("another tenant's API at the front door", a, strconv.Itoa(int(s.tenant.Status.APIPort))))
	}
	return out
}

func metadata() []target {
	var out []target
	for _, a := range metadataAddresses {
		out = append(out, dial("the cloud's metadata", a, "80"))
	}
	return out
}

// batch is targets to try from one canary.
type batch struct {
	from    ObjectRef
	targets []target
	into    *[]Attempt
}

// probeFirst runs what is counted: the attempts at the metadata service, which
// nothing else that is refused may run beside, and the controls.
func probeFirst(ctx context.Context, run Commander, s station) Probes {
	p := s.probes()
	var dns []Attempt
	tryAll(ctx, run, []batch{
		{s.prober.ref, s.controls(), &p.Controls},
		{s.prober.ref, []target{s.dns()}, &dns},
		{s.prober.ref, metadata(), &p.Metadata},
	})
	p.DNS = dns[0]
	p.Controls = append(p.Controls, p.DNS)
	return p
}

// probeRest adds every other attempt of a station against the stranger and the
// host, and the stranger's against the station.
func probeRest(ctx context.Context, run Commander, p *Probes, s station, other Fact[station], host []target) {
	batches := []batch{{s.prober.ref, host, &p.Host}}
	if stranger, err := other.Get(); err == nil {
		batches = append(batches,
			batch{s.prober.ref, stranger.pods(), &p.Stranger},
			batch{s.prober.ref, stranger.api(), &p.StrangerAPI},
			batch{stranger.prober.ref, append(both("the tenant's pod", s.peer.ip), both("the tenant's pod", s.prober.ip)...), &p.Inbound},
			batch{stranger.prober.ref, stranger.controls(), &p.InboundControls},
		)
	} else {
		missing := []Attempt{{To: "another tenant", From: s.prober.ref, At: time.Now().UTC(), Reply: Unknown[Reply](err)}}
		p.Stranger, p.StrangerAPI, p.Inbound = missing, missing, missing
	}
	tryAll(ctx, run, batches)
	p.Uname = said(ctx, run, p.Canary, "uname")
	p.Dmesg = said(ctx, run, p.Canary, "dmesg")
}

// probes returns what is known before anything is tried.
func (s station) probes() Probes {
	p := Probes{Canary: s.prober.ref, Node: s.prober.node}
	if cidr, err := slice(s.tenant); err == nil {
		p.APIAddress = tenant.APIAddress(cidr).String()
	}
	return p
}

// tryAll tries everything, a few at once.
func tryAll(ctx context.Context, run Commander, batches []batch) {
	var group sync.WaitGroup
	slots := make(chan struct{}, parallelTries)
	for _, b := range batches {
		attempts := make([]Attempt, len(b.targets))
		*b.into = attempts
		for i, t := range b.targets {
			group.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				attempts[i] = try(ctx, run, b.from, t)
			})
		}
	}
	group.Wait()
}

func try(ctx context.Context, run Commander, from ObjectRef, t target) Attempt {
	a := Attempt{To: t.to, Address: t.address, From: from, Command: t.command, At: time.Now().UTC()}
	out, err := run.Run(ctx, from.Namespace, from.Name, t.command)
	a.Reply = readReply(out, err)
	return a
}

// readReply reads a canary's line. The line counts even when the command failed:
// the canary fails when what it tries does.
func readReply(out string, err error) Fact[Reply] {
	var r *Reply
	line := strings.TrimSpace(out)
	if jsonErr := json.Unmarshal([]byte(line), &r); jsonErr == nil && r != nil {
		return Known(*r)
	}
	if err == nil {
		err = fmt.Errorf("the canary answered %q", firstLine(out))
	}
	return Unknown[Reply](err)
}

func said(ctx context.Context, run Commander, from ObjectRef, command string) Fact[string] {
	reply, err := readReply(run.Run(ctx, from.Namespace, from.Name, []string{canaryBinary, command})).Get()
	if err == nil && !reply.OK {
		err = errors.New(reply.Error)
	}
	return Found(reply.Output, err)
}
