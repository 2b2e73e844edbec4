package patrol

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"sublet.dev/syncer/engine"
)

const (
	// defaultEvery is how long a patrol rests between two rounds: drift that no event
	// told of is rare, and a round reads the whole host namespace.
	defaultEvery = 15 * time.Minute
	// pace is how long it waits after each key, so that a round of ten thousand pods
	// takes minutes and leaves the queue to what is new.
	pace = 5 * time.Millisecond
	// hurry is what lies between two rounds at least, however often Soon is called:
	// a tenant can make things fail.
	hurry = time.Minute
)

// Config is what a Patrol needs.
type Config struct {
	// Keys returns the keys of one round, of both sides; they are compared even if it
	// returns an error with them.
	Keys func(ctx context.Context) ([]engine.Key, error)
	// Inspect has a key compared; what became of it is told to Inspected.
	Inspect func(engine.Key)
	Every   time.Duration // from the end of a round to the next; 0: a quarter of an hour
	Clock   clock.WithTicker
	Logger  *slog.Logger
}

// Stats is what a patrol has done since it was made.
type Stats struct {
	// Rounds counts those that were finished; LastRound is when the last one was.
	Rounds    int       `json:"rounds"`
	LastRound time.Time `json:"lastRound,omitzero"`
	// Compared counts keys, Repaired those of them that took a write.
	Compared int `json:"compared"`
	Repaired int `json:"repaired"`
	// Remarked counts host objects whose labels were restored, Unreadable those of the
	// last round that say that a syncer made them, and not for whom.
	Remarked   int `json:"remarked"`
	Unreadable int `json:"unreadable"`
}

// Patrol walks rounds. Make it with New.
type Patrol struct {
	config Config
	soon   chan struct{} // gets a value when the next round is not to wait
	mu     sync.Mutex
	stats  Stats // guarded by mu
}

// New returns a patrol that does not walk yet.
func New(c Config) *Patrol {
	if c.Every <= 0 {
		c.Every = defaultEvery
	}
	return &Patrol{config: c, soon: make(chan struct{}, 1)}
}

// Soon has the next round begin at once, if the last one was not just now: something
// stands in the way that only a patrol can judge.
func (p *Patrol) Soon() {
	select {
	case p.soon <- struct{}{}:
	default:
	}
}

// Run walks until ctx ends. The first round begins after the first rest, for what has
// just been started compares everything anyway.
func (p *Patrol) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.config.Clock.After(p.config.Every):
		case <-p.soon:
		}
		p.Round(ctx)
		select {
		case <-ctx.Done():
			return
		case <-p.config.Clock.After(hurry):
		}
	}
}

// Round walks one round: it returns when all of it is queued.
func (p *Patrol) Round(ctx context.Context) {
	p.Count(func(s *Stats) { s.Unreadable = 0 })
	keys, err := p.config.Keys(ctx)
	if err != nil && ctx.Err() == nil {
		p.config.Logger.Warn("the patrol could not see everything, the next one will try again", "error", err)
	}
	for _, k := range keys {
		if ctx.Err() != nil {
			return
		}
		p.config.Inspect(k)
		select {
		case <-ctx.Done():
			return
		case <-p.config.Clock.After(pace):
		}
	}
	p.Count(func(s *Stats) { s.Rounds++; s.LastRound = p.config.Clock.Now() })
}

// Inspected is told of each key that was compared, and how many writes that took.
func (p *Patrol) Inspected(k engine.Key, writes int64) {
	p.Count(func(s *Stats) {
		s.Compared++
		if writes > 0 {
			s.Repaired++
		}
	})
	if writes > 0 {
		p.config.Logger.Warn("the patrol repaired a drift", "kind", k.Kind, "namespace", k.Name.Namespace, "name", k.Name.Name)
	}
}

// Count changes the statistics.
func (p *Patrol) Count(change func(*Stats)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.stats)
}

// Stats returns what was done so far.
func (p *Patrol) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}
