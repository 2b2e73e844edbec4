package audit

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/api/v1alpha1"
)

const (
	// DefaultTimeout is how long an audit may take without its cleaning up.
	DefaultTimeout = 2 * time.Minute
	// cleanupTime is how long the removal of canaries may take after that.
	cleanupTime = time.Minute
	// settle is how long a finding in the objects has to last: what is between
	// two writes of a controller is none.
	settle = 2 * time.Second
	// parallelTenants is how many tenants are audited at once: two canaries each.
	parallelTenants = 2
)

// ErrNoTenant is the error of [Run] for a tenant that does not exist.
var ErrNoTenant = errors.New("no such tenant")

// Config says what to audit and how.
type Config struct {
	// Host leads to the host API, as its administrator. It is not changed.
	Host *rest.Config
	// Tenants are the names to audit; none means all.
	Tenants []string
	// Probing starts canaries that try. Without it the checks that need them
	// are skipped.
	Probing bool
	// FailOn is the least severity of a finding that changes the exit code.
	FailOn Severity
	// Timeout bounds the audit without its cleaning up; 0 is [DefaultTimeout].
	Timeout time.Duration
	// Image is the canary's; "" is [DefaultImage]. Every node must have it.
	Image string
	// Progress is told what is being done, a line at a time and never two at
	// once; nil is nobody.
	Progress func(line string)
}

// audit is one run.
type audit struct {
	config    Config
	run       string
	collector collector
	canaries  *canaries
	nodes     NodeReader
	commander Commander

	mu       sync.Mutex // guards problems, and is held during Config.Progress
	problems []string
}

// Run audits. It returns an error, and no report, only when it could not be done
// at all: the host API does not answer, a tenant does not exist, or ctx ended.
// Whatever it started is gone when it returns, or the report says what is not;
// that much it does also after ctx has ended.
func Run(ctx context.Context, c Config) (*Report, error) {
	a, err := newAudit(c)
	if err != nil {
		return nil, err
	}
	started := time.Now().UTC()
	bounded, cancel := context.WithTimeout(ctx, a.config.Timeout)
	defer cancel()
	all, err := a.collector.tenants(bounded).Get()
	if err != nil {
		return nil, fmt.Errorf("read the tenants: %w", err)
	}
	chosen, err := choose(all, c.Tenants)
	if err != nil {
		return nil, err
	}
	subjects := a.subjects(bounded, chosen)
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("the audit was interrupted: %w", err)
	}
	r := &Report{Schema: Schema, Run: a.run, Started: started, Finished: time.Now().UTC(), Probing: c.Probing, FailOn: a.config.FailOn,
		Subjects: subjects, Problems: a.problems}
	r.conclude()
	return r, nil
}

func newAudit(c Config) (*audit, error) {
	c.FailOn = cmp.Or(c.FailOn, Low)
	c.Timeout = cmp.Or(c.Timeout, DefaultTimeout)
	c.Image = cmp.Or(c.Image, DefaultImage)
	if c.Progress == nil {
		c.Progress = func(string) {}
	}
	if c.Host == nil {
		return nil, errors.New("audit: Config.Host must be set")
	}
	if c.Timeout < 0 {
		return nil, errors.New("audit: Config.Timeout must not be negative")
	}
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	host, err := client.New(rest.CopyConfig(c.Host), client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("make a client of the host API: %w", err)
	}
	api, err := newHostAPI(rest.CopyConfig(c.Host))
	if err != nil {
		return nil, err
	}
	run := newRun()
	lifetime := c.Timeout + cleanupTime
	p := plan{run: run, image: c.Image, lifetime: lifetime, expires: time.Now().Add(lifetime)}
	return &audit{config: c, run: run, collector: collector{host}, canaries: &canaries{host, p}, nodes: api, commander: api}, nil
}

// newRun returns a name that no other run has.
func newRun() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// choose returns the tenants called names, or all that are not being deleted,
// without those of audits.
func choose(all []v1alpha1.VirtualCluster, names []string) ([]v1alpha1.VirtualCluster, error) {
	var out []v1alpha1.VirtualCluster
	for _, vc := range all {
		asked := len(names) == 0 && vc.DeletionTimestamp == nil || slices.Contains(names, vc.Name)
		if vc.Labels[LabelAudit] == "" && asked {
			out = append(out, vc)
		}
	}
	for _, n := range names {
		if !slices.ContainsFunc(out, func(vc v1alpha1.VirtualCluster) bool { return vc.Name == n }) {
			return nil, fmt.Errorf("%w: %q: `sublet list` shows those there are", ErrNoTenant, n)
		}
	}
	slices.SortFunc(out, func(x, y v1alpha1.VirtualCluster) int { return strings.Compare(x.Name, y.Name) })
	return out, nil
}

func (a *audit) problem(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.problems = append(a.problems, fmt.Sprintf(format, args...))
}

func (a *audit) progress(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.config.Progress(fmt.Sprintf(format, args...))
}

// subjects audits the tenants, a few at once, and then the host. Everything is
// read before anything is started: the agents write their fence anew for a new
// pod, and would mend what the audit is there to find.
func (a *audit) subjects(ctx context.Context, tenants []v1alpha1.VirtualCluster) []Subject {
	facts := make([]*Facts, len(tenants))
	each(len(tenants), func(i int) { facts[i] = a.read(ctx, tenants[i].Name) })
	if a.config.Probing && len(tenants) > 0 {
		a.withStranger(ctx, tenants[0].Spec.Sandbox, func(other Fact[station]) {
			each(len(tenants), func(i int) { a.try(ctx, facts[i], other) })
		})
	}
	var out []Subject
	for i, vc := range tenants {
		if _, err := facts[i].Tenant.Get(); apierrors.IsNotFound(err) {
			continue // it was deleted meanwhile
		}
		results := a.settled(ctx, TenantChecks(), facts[i], func() *Facts { return a.collector.tenant(ctx, vc.Name) })
		s := Subject{Kind: SubjectTenant, Name: vc.Name, UID: string(vc.UID), Namespace: vc.Status.Namespace, Sandbox: vc.Spec.Sandbox, Results: results}
		s.Coverage, s.Verdict = cover(results)
		out = append(out, s)
	}
	host := Subject{Kind: SubjectHost, Name: "host"}
	host.Results = a.settled(ctx, HostChecks(), a.hostFacts(ctx), func() *Facts { return a.collector.hostFacts(ctx) })
	host.Coverage, host.Verdict = cover(host.Results)
	return append(out, host)
}

// each calls work for 0 to n-1, a few at once, and waits.
func each(n int, work func(i int)) {
	var group sync.WaitGroup
	slots := make(chan struct{}, parallelTenants)
	for i := range n {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			work(i)
		})
	}
	group.Wait()
}

// settled evaluates checks, and evaluates those of the objects again over fresh
// facts when one failed: only what lasts is a finding. Facts that were expensive
// to get are kept.
func (a *audit) settled(ctx context.Context, checks []Check, facts *Facts, again func() *Facts) []Result {
	results := Evaluate(checks, facts, a.config.Probing)
	unsettled := func(r Result) bool { return r.Method == ByConfig && r.Status == Fail }
	if !slices.ContainsFunc(results, unsettled) {
		return results
	}
	select {
	case <-ctx.Done():
		return results
	case <-time.After(settle):
	}
	second := Evaluate(checks, again(), a.config.Probing)
	for i := range results {
		if unsettled(results[i]) {
			results[i] = second[i]
		}
	}
	return results
}

// withStranger runs work with the run's own tenant in place, and removes all
// canaries afterwards, come what may.
func (a *audit) withStranger(ctx context.Context, sandbox string, work func(Fact[station])) {
	a.sweep(ctx)
	defer func() {
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
		defer cancel()
		a.progress("removing what the audit started")
		if err := a.canaries.remove(cleanup, true); err != nil {
			a.problem("remove the canaries of run %s (label %s=%s): %v", a.run, LabelAudit, a.run, err)
		}
	}()
	work(a.stranger(ctx, sandbox))
}

// sweep removes what earlier audits could not.
func (a *audit) sweep(ctx context.Context) {
	ctx, cancel := a.share(ctx)
	defer cancel()
	if err := a.canaries.remove(ctx, false); err != nil {
		a.problem("remove what an earlier audit left: %v", err)
	}
}

// stranger places the canaries of the run's own tenant.
func (a *audit) stranger(ctx context.Context, sandbox string) Fact[station] {
	a.progress("starting a tenant of the audit's own, to play any other")
	ctx, cancel := a.share(ctx)
	defer cancel()
	vc, err := a.canaries.stranger(ctx, sandbox)
	if err != nil {
		return Unknown[station](err)
	}
	return Found(a.canaries.place(ctx, vc))
}

// share is the part of the audit's time that waiting for something to start may
// take, so that there is time left to read what can be read.
func (a *audit) share(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, a.config.Timeout/3)
}

// place places a tenant's canaries within their share of the time.
func (a *audit) place(ctx context.Context, vc v1alpha1.VirtualCluster) Fact[station] {
	ctx, cancel := a.share(ctx)
	defer cancel()
	return Found(a.canaries.place(ctx, vc))
}

// read finds out about a tenant what can be found out without trying.
func (a *audit) read(ctx context.Context, name string) *Facts {
	a.progress("reading tenant %s", name)
	f := a.collector.tenant(ctx, name)
	vc, err := f.Tenant.Get()
	if err != nil {
		return f
	}
	f.Fences = a.fences(ctx, vc.Status.Namespace)
	f.Sandboxes = a.sandboxes(ctx, f.Pods)
	return f
}

// try adds what the canaries find.
func (a *audit) try(ctx context.Context, f *Facts, other Fact[station]) {
	vc, err := f.Tenant.Get()
	if err != nil {
		return
	}
	a.progress("trying from tenant %s", vc.Name)
	f.Admissions = Known(a.canaries.admissions(ctx, vc))
	here := a.place(ctx, vc)
	defer a.canaries.drop(ctx, vc)
	if boxes, err := f.Sandboxes.Get(); err == nil {
		f.Sandboxes = Known(append(boxes, a.canarySandbox(ctx, here)))
	}
	s, err := here.Get()
	if err != nil {
		f.Probes = Unknown[Probes](err)
		return
	}
	f.Probes = a.probe(ctx, s, other)
}
