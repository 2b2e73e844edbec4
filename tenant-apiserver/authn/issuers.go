package authn

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	tokenunion "k8s.io/apiserver/pkg/authentication/token/union"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/oidc"
)

const (
	// settleTime is how long tokens wait for an issuer that was just configured, as
	// when a tenant wakes.
	settleTime = 5 * time.Second
	// settlePoll is how often it is looked whether an issuer's keys are there.
	settlePoll = 10 * time.Millisecond
)

// Config describes the issuers' surroundings.
type Config struct {
	// ID is the API server's, for upstream's metrics.
	ID string
	// Own are the issuers of the API server's own tokens.
	Own []string
	// Usual connects to issuers, unless their configuration says egressSelectorType
	// "controlplane": then Direct does.
	Usual, Direct Dial
}

// Issuers is a token authenticator for issuers that may change. Its methods are safe
// for concurrent use.
type Issuers struct {
	config  Config
	life    context.Context
	cancel  context.CancelFunc
	work    sync.WaitGroup
	current atomic.Pointer[set]

	mu     sync.Mutex // one change at a time
	closed bool
}

var _ authenticator.Token = (*Issuers)(nil)

// New returns an authenticator that knows no issuer. Values of ctx are kept. It must
// be closed.
func New(ctx context.Context, c Config) *Issuers {
	i := &Issuers{config: c}
	i.life, i.cancel = context.WithCancel(context.WithoutCancel(ctx))
	i.current.Store(newSet(i.life, nil))
	return i
}

// Set makes these the issuers, from now on. An error leaves those there were. Requests
// under way end with the issuers they began with. It does not wait for any issuer.
func (i *Issuers) Set(c *apiserver.AuthenticationConfiguration) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	old := i.current.Load()
	if i.closed || reflect.DeepEqual(old.jwt, c.JWT) || len(old.jwt)+len(c.JWT) == 0 {
		return nil
	}
	next := newSet(i.life, c.JWT)
	var err error
	for _, j := range c.JWT {
		if same := old.take(j); same != nil {
			next.members = append(next.members, same)
			continue
		}
		m, makeErr := i.newMember(j)
		if makeErr != nil {
			err = errors.Join(err, fmt.Errorf("issuer %s: %w", j.Issuer.URL, makeErr))
			continue
		}
		next.members = append(next.members, m)
	}
	if err != nil {
		i.end(next.without(old))
		return err
	}
	next.unite()
	i.current.Store(next)
	i.work.Go(next.settle)
	gone := old.without(next)
	i.work.Go(func() {
		old.retire()
		i.end(gone)
	})
	return nil
}

// end ends what no request uses any more.
func (i *Issuers) end(gone []*member) {
	for _, m := range gone {
		m.end()
		oidc.DeleteJWKSFetchMetrics(m.jwt.Issuer.URL, i.config.ID)
	}
}

// AuthenticateToken implements authenticator.Token.
func (i *Issuers) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	for {
		s := i.current.Load()
		if len(s.members) == 0 {
			return nil, false, nil
		}
		if !s.enter() {
			continue // it was replaced
		}
		defer s.leave()
		select {
		case <-s.settled:
		case <-ctx.Done():
			return nil, false, context.Cause(ctx)
		}
		return s.all.AuthenticateToken(ctx, token)
	}
}

// Close asks no issuer any more and knows none. It is idempotent, and waits.
func (i *Issuers) Close() {
	i.mu.Lock()
	first := !i.closed
	i.closed = true
	i.mu.Unlock()
	i.cancel()
	i.work.Wait()
	if first {
		i.end(i.current.Load().members)
	}
}

// set is the issuers at one time.
type set struct {
	life    context.Context
	jwt     []apiserver.JWTAuthenticator
	members []*member
	all     authenticator.Token
	settled chan struct{} // closed when no token need wait for keys

	users sync.RWMutex // held for reading by those who authenticate with it
	done  bool         // guarded by users
}

func newSet(life context.Context, jwt []apiserver.JWTAuthenticator) *set {
	return &set{life: life, jwt: jwt, settled: make(chan struct{})}
}

// unite makes the authenticator of all members.
func (s *set) unite() {
	all := make([]authenticator.Token, 0, len(s.members))
	for _, m := range s.members {
		all = append(all, m.token)
	}
	s.all = tokenunion.NewFailOnError(all...)
}

// take returns the member that is configured so.
func (s *set) take(j apiserver.JWTAuthenticator) *member {
	for _, m := range s.members {
		if reflect.DeepEqual(m.jwt, j) {
			return m
		}
	}
	return nil
}

// without are the members that are not in another set.
func (s *set) without(o *set) []*member {
	var only []*member
	for _, m := range s.members {
		if o.take(m.jwt) != m {
			only = append(only, m)
		}
	}
	return only
}

// enter begins a use of the set; false when it was replaced.
func (s *set) enter() bool {
	s.users.RLock()
	if s.done {
		s.users.RUnlock()
		return false
	}
	return true
}

func (s *set) leave() { s.users.RUnlock() }

// retire waits until nobody uses the set.
func (s *set) retire() {
	s.users.Lock()
	defer s.users.Unlock()
	s.done = true
}

// settle waits for the keys of all issuers, for a while.
func (s *set) settle() {
	defer close(s.settled)
	ctx, cancel := context.WithTimeout(s.life, settleTime)
	defer cancel()
	tick := time.NewTicker(settlePoll)
	defer tick.Stop()
	for !s.healthy() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *set) healthy() bool {
	for _, m := range s.members {
		if m.token.HealthCheck() != nil {
			return false
		}
	}
	return true
}
