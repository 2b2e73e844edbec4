package engine

import (
	"context"
	"net/http"
	"sync/atomic"

	"k8s.io/client-go/transport"
)

// countKey is the key of a context's counter of writes.
type countKey struct{}

// countWrites returns a context whose writes, through transports of Budget.Wrap and
// Counted, are counted.
func countWrites(ctx context.Context) (context.Context, *atomic.Int64) {
	n := &atomic.Int64{}
	return context.WithValue(ctx, countKey{}, n), n
}

// Counted returns what makes a client's writes count.
func Counted() transport.WrapperFunc {
	return func(next http.RoundTripper) http.RoundTripper { return &counted{next} }
}

type counted struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (c *counted) RoundTrip(r *http.Request) (*http.Response, error) {
	if !writes(r) {
		return c.next.RoundTrip(r)
	}
	answer, err := c.next.RoundTrip(r)
	count(r, answer, err)
	return answer, err
}

// WrappedRoundTripper lets client-go look at the transport below.
func (c *counted) WrappedRoundTripper() http.RoundTripper { return c.next }

// count counts a write that was carried out.
func count(r *http.Request, answer *http.Response, err error) {
	if err != nil || answer.StatusCode >= http.StatusMultipleChoices {
		return
	}
	if n, ok := r.Context().Value(countKey{}).(*atomic.Int64); ok {
		n.Add(1)
	}
}
