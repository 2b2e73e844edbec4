package syncer

import (
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
// news of its choices are on their way.
const toSchedule = 8

// crowdLooks is when a pod that waits for its turn looks again by itself. It is called
// long before, by the host pods that leave the scheduler.
const crowdLooks = 30 * time.Second

// crowd is the pods of a tenant that are not on the host yet because too many before
// them wait for the scheduler, first come first.
type crowd struct {
	mu     sync.Mutex
	names  []tenant.Name            // guarded by mu
	in     map[tenant.Name]struct{} // guarded by mu: those in names
	called map[tenant.Name]struct{} // guarded by mu: those that were called and have not come yet
}

func newCrowd() *crowd {
	return &crowd{in: map[tenant.Name]struct{}{}, called: map[tenant.Name]struct{}{}}
}

// add puts a pod at the end of the line, if it does not stand there.
func (c *crowd) add(name tenant.Name) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.in[name]; !ok {
		c.in[name] = struct{}{}
		c.names = append(c.names, name)
	}
}

// call takes as many out of the line as there is room for.
func (c *crowd) call(room func() int) []tenant.Name {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.names) == 0 {
		return nil
	}
	n := min(len(c.names), max(0, room()-len(c.called)))
	first := c.names[:n:n]
	for _, name := range first {
		delete(c.in, name)
		c.called[name] = struct{}{}
	}
	if c.names = c.names[n:]; len(c.names) == 0 {
		c.names = nil
	}
	return first
}

// came notes that a pod was worked on, whatever became of it, and says whether it had
// been called.
func (c *crowd) came(name tenant.Name) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, was := c.called[name]
	delete(c.called, name)
	return was
}

// room is how many more host pods the scheduler may get from this tenant.
func (s *Syncer) room() int {
	waiting, err := s.caches.host.pods.GetIndexer().IndexKeys(byScheduling, waits)
	if err != nil {
		return toSchedule // the index was added when the informer was made
	}
	return toSchedule - len(waiting)
}

// crowded says whether a pod has to wait for others of its tenant to be scheduled. It
// is called again as soon as there is room: whoever makes room after it was put in
// line finds it there.
func (s *Syncer) crowded(name tenant.Name) bool {
	if s.room() > 0 {
		return false
	}
	s.crowd.add(name)
	return s.room() <= 0
}

// called returns the keys of the pods for which there is room now.
func (s *Syncer) called() []engine.Key {
	var all []engine.Key
	for _, name := range s.crowd.call(s.room) {
		all = append(all, keys(name, kindPod)...)
	}
	return all
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
