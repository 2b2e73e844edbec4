package hostcache

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// A connection carries so many requests at a time, and a watch is one for as long as it
// lasts: kube-apiserver takes 100. Once all connections are full, each request that is
// made opens another, and those that turn out not to be needed are opened all the same
// (net/http, Transport.queueForDial). Some 900 watches begun at once open 2,000
// connections, where nine would do, with a TLS handshake each.
// So views begin their lists and watches a few at a time.

const (
	// atOnce is how many lists and watches of a cache are begun at the same time: enough
	// for a host that is some milliseconds away.
	atOnce = 16
	// patience is how long one waits for its turn. Then it begins without: what the host
	// does not answer, for a webhook that hangs, for example, holds up the rest no longer.
	patience = 10 * time.Second
)

// turns are had by those that begin a list or a watch.
type turns chan struct{}

func newTurns() turns { return make(turns, atOnce) }

// take waits for a turn, for patience, or until ctx ends. The caller gives it back.
func (t turns) take(ctx context.Context) (giveBack func()) {
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case t <- struct{}{}:
		return func() { <-t }
	case <-late.C:
	case <-ctx.Done():
	}
	return func() {}
}

// inTurn is a source whose lists and watches begin in turn.
type inTurn struct {
	source
	turns turns
}

// ListWithContext implements cache.ListerWithContext.
func (s inTurn) ListWithContext(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	defer s.turns.take(ctx)()
	return s.source.ListWithContext(ctx, o)
}

// WatchWithContext implements cache.WatcherWithContext. It returns when the host has
// begun to answer.
func (s inTurn) WatchWithContext(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	defer s.turns.take(ctx)()
	return s.source.WatchWithContext(ctx, o)
}

var _ cache.ListerWatcherWithContext = inTurn{}
