package engine

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"sublet.dev/isolation/tenant"
)

// patience is for how long what was made is expected in the cache.
const patience = time.Second

// unseen is what was made and the cache has not shown yet. That it appears brings the next
// pass; one that comes before has nothing to do, and would only be refused. What was removed
// before the cache showed it is made again when patience is over. A name is in it until
// it was seen or its source is gone. The zero value is empty and ready.
type unseen struct {
	mu   sync.Mutex
	made map[tenant.Name]made // guarded by mu
}

// made is that something was made for an owner.
type made struct {
	owner types.UID
	until time.Time // when it is expected no longer
}

func (u *unseen) note(name tenant.Name, owner types.UID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.made == nil {
		u.made = map[tenant.Name]made{}
	}
	u.made[name] = made{owner, time.Now().Add(patience)}
}

// left is for how long what was made under a name for an owner is expected yet; 0 or less: it
// is not.
func (u *unseen) left(name tenant.Name, owner types.UID) time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	if m, ok := u.made[name]; ok && m.owner == owner {
		return time.Until(m.until)
	}
	return 0
}

// expects says whether something was made under a name that is expected yet.
func (u *unseen) expects(name tenant.Name) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	m, ok := u.made[name]
	return ok && time.Now().Before(m.until)
}

func (u *unseen) forget(name tenant.Name) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.made, name)
}
