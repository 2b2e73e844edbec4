package syncer

import (
	"context"
	"maps"
	"slices"
	"sort"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/translate"
)

// toSchedule is how many of a tenant's host pods may wait for the host's scheduler at a
// time. The scheduler serves all tenants in the order in which their pods came, so
// what one tenant puts there others wait for. It is as many as keep it busy while the
// news of its choices are on their way. Beside other tenants it is fewer, for each is a
// time that those wait; and they come together, when none of the tenant's waits any more,
// for what is made in a namespace at the same time the host's quota admission counts with
// one write.
const (
	toSchedule       = 8
	toScheduleBeside = 4
)

// kindCrowd is the pass that looks whether there is room for those in line.
const kindCrowd = "Crowd"

// crowdLooks is how often it looks by itself while pods wait. They are called long before,
// by the host pods that leave the scheduler.
const crowdLooks = 30 * time.Second

// crowd is the pods of a tenant that are not on the host yet because too many before
// them wait for the scheduler: the most important first, of these first come first.
type crowd struct {
	mu   sync.Mutex
	line []waiting                // guarded by mu
	in   map[tenant.Name]struct{} // guarded by mu: those in line
	// goes has those that may go to the host and were not seen there. Guarded by mu.
	goes map[tenant.Name]*going
}

// going is a pod that may go to the host.
type going struct {
	underWay bool      // a pass is at it; otherwise it is yet to come, or was
	made     time.Time // when the pass had made the host pod
}

// unseenFor is for how long a host pod that was made is on its way to the cache: what is
// not there by then was removed before.
const unseenFor = time.Second

// waiting is a pod in the line.
type waiting struct {
	name     tenant.Name
	priority int64 // see translate.Importance
}

func newCrowd() *crowd {
	return &crowd{in: map[tenant.Name]struct{}{}, goes: map[tenant.Name]*going{}}
}

// begin notes that a pass over a pod is under way.
func (c *crowd) begin(name tenant.Name) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g, called := c.goes[name]; called {
		g.underWay = true
	}
}

// admit says whether the pass over a pod, which is under way, may bring it to the host: if
// the pod was called, or nobody waits and there is room. Otherwise the pod stands in the
// line, behind all that are as important; first says that it is the only one there now.
func (c *crowd) admit(name tenant.Name, priority int64, room func() int) (may, first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, waits := c.in[name]; waits {
		return false, false
	}
	if _, called := c.goes[name]; called {
		return true, false
	}
	if len(c.line) == 0 && room() > c.onTheirWay() {
		c.goes[name] = &going{underWay: true}
		return true, false
	}
	c.in[name] = struct{}{}
	at := sort.Search(len(c.line), func(i int) bool { return c.line[i].priority < priority })
	c.line = slices.Insert(c.line, at, waiting{name, priority})
	return false, len(c.line) == 1
}

// call takes as many out of the line as there is room for, and says whether others wait on.
func (c *crowd) call(room func() int) (first []tenant.Name, more bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.line) == 0 {
		return nil, false
	}
	for _, w := range c.line[:min(len(c.line), max(0, room()-c.onTheirWay()))] {
		delete(c.in, w.name)
		c.goes[w.name] = &going{}
		first = append(first, w.name)
	}
	if c.line = c.line[len(first):]; len(c.line) == 0 {
		c.line = nil
	}
	return first, len(c.line) > 0
}

// place is where a pod stands in the line, from 1 on; 0: it does not.
func (c *crowd) place(name tenant.Name) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return 1 + slices.IndexFunc(c.line, func(w waiting) bool { return w.name == name })
}

// end notes that the pass over a pod has ended, whether it has made the host pod, which is
// not to be seen yet, or whatever became of it. It says whether the pod had been one of
// those that may go, and is no longer.
func (c *crowd) end(name tenant.Name, made bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	g, ok := c.goes[name]
	if !ok || !g.underWay {
		return false // it was called since the pass began: the next one is for that
	}
	if made {
		g.underWay, g.made = false, time.Now()
		return false
	}
	delete(c.goes, name)
	return true
}

// seen notes that a pod came to the host, or went. What went may have been another one of
// that name, for which one waits that is to be made.
func (c *crowd) seen(name tenant.Name) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g, ok := c.goes[name]; ok && !g.made.IsZero() {
		delete(c.goes, name)
	}
}

// onTheirWay counts those that may go. The caller holds mu.
func (c *crowd) onTheirWay() int {
	maps.DeleteFunc(c.goes, func(_ tenant.Name, g *going) bool { return !g.made.IsZero() && time.Since(g.made) > unseenFor })
	return len(c.goes)
}

// room is how many more host pods the scheduler may get from this tenant.
func (s *Syncer) room() int {
	waiting, err := s.caches.host.pods.GetIndexer().IndexKeys(byScheduling, waits)
	if err != nil {
		return toSchedule // the index was added when the informer was made
	}
	return roomFor(len(waiting), s.config.Host.budget.Alone(s.config.Tenant.ID))
}

// roomFor is how many more host pods the scheduler may get from a tenant of which so many
// wait for it, while no other tenant writes to the host, or some do.
func roomFor(waiting int, alone bool) int {
	switch {
	case alone:
		return toSchedule - waiting
	case waiting == 0:
		return toScheduleBeside
	default:
		return 0
	}
}

// crowded says whether a pod has to wait for others of its tenant to be scheduled. It
// is called as soon as there is room: whoever makes room after it was put in line finds
// it there, and for what was made before, the line is looked at once more.
func (s *Syncer) crowded(tenantPod *corev1.Pod) bool {
	may, first := s.crowd.admit(translate.NameOf(tenantPod), s.t.Importance(tenantPod), s.room)
	if first {
		s.engine.Add(keys(tenant.Name{}, kindCrowd)...)
	}
	return !may
}

// called returns the keys of the pods for which there is room now.
func (s *Syncer) called() []engine.Key {
	all, _ := s.callMore()
	return all
}

func (s *Syncer) callMore() (all []engine.Key, more bool) {
	names, more := s.crowd.call(s.room)
	for _, name := range names {
		all = append(all, keys(name, kindPod)...)
	}
	return all, more
}

// crowdPass calls those for which there is room, whatever was or was not observed, while
// there are any.
type crowdPass struct{ *Syncer }

// Kind implements engine.Pass.
func (p crowdPass) Kind() string { return kindCrowd }

// Reconcile implements engine.Pass; there is one line, whatever the name.
func (p crowdPass) Reconcile(context.Context, tenant.Name) (time.Duration, error) {
	called, more := p.callMore()
	p.engine.Add(called...)
	if more {
		return crowdLooks, nil
	}
	return 0, nil
}

// waits is the value of the index byScheduling.
const waits = "waits"

// scheduling says whether the host's scheduler has yet to look at a pod. One for which
// it has found no node is no longer in the way.
func scheduling(hostPod *corev1.Pod) []string {
	if hostPod.Spec.NodeName != "" || hostPod.DeletionTimestamp != nil || translate.Ended(hostPod) {
		return nil
	}
	for _, c := range hostPod.Status.Conditions {
		if c.Type == corev1.PodScheduled {
			return nil
		}
	}
	return []string{waits}
}
