package kube

import (
	"context"
	"io"
	"net/http"
	"sync"

	"github.com/google/uuid"
	"k8s.io/client-go/rest"
)

// loopback is an http.RoundTripper that calls a handler of this process. The
// body of the answer is a pipe, so that watches stream; the request's context
// ends both sides. Requests wait for serve, and are refused after close.
type loopback struct {
	handler http.Handler  // set before serving is closed
	serving chan struct{} // closed by serve

	mu     sync.Mutex
	closed bool
	calls  sync.WaitGroup
	ctx    context.Context // ends when close is called
	cancel context.CancelFunc
}

// loopbackKey marks the context of requests that came through a loopback. The
// type is private to this package, so no request from outside can carry it.
type loopbackKey struct{}

func fromLoopback(ctx context.Context) bool { return ctx.Value(loopbackKey{}) != nil }

// valueless is a context that ends with another and has none of its values. A request
// that is made on behalf of another one (admission looks something up) is one of its
// own: with the values of the first it would have its audit record and its user.
type valueless struct{ context.Context }

// Value implements context.Context.
func (valueless) Value(any) any { return nil }

// AfterFunc is what package context asks for to need no goroutine for a context that it
// does not know.
func (v valueless) AfterFunc(f func()) (stop func() bool) { return context.AfterFunc(v.Context, f) }

// newLoopback makes one that closes at the latest when life ends.
func newLoopback(life context.Context) *loopback {
	ctx, cancel := context.WithCancel(life)
	return &loopback{serving: make(chan struct{}), ctx: ctx, cancel: cancel}
}

// config is a client configuration that reaches the handler as cluster
// administrator. Requests pass authentication, authorization, admission and
// fairness like any other.
func (l *loopback) config() *rest.Config {
	return &rest.Config{
		Host:        "http://loopback.sublet.internal",
		Transport:   l,
		BearerToken: uuid.NewString(),
		// The server's own fairness limits clients; a second limit in front
		// of it would only add delay.
		QPS: -1,
	}
}

// serve gives the handler; it is called once.
func (l *loopback) serve(h http.Handler) {
	l.handler = h
	close(l.serving)
}

// close ends all requests under way and waits for their handlers.
func (l *loopback) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.cancel()
	l.calls.Wait()
}

// begin waits for the handler and counts a call in; it fails after close.
func (l *loopback) begin(ctx context.Context) bool {
	select {
	case <-l.serving:
	case <-l.ctx.Done():
		return false
	case <-ctx.Done():
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.calls.Add(1)
	return true
}

// RoundTrip implements http.RoundTripper.
func (l *loopback) RoundTrip(req *http.Request) (*http.Response, error) {
	if !l.begin(req.Context()) {
		closeBody(req)
		return nil, errNotServing
	}
	ctx, cancel := context.WithCancel(context.WithValue(valueless{req.Context()}, loopbackKey{}, true))
	unhook := context.AfterFunc(l.ctx, cancel)
	in := req.Clone(ctx)
	in.RequestURI = in.URL.RequestURI()
	in.RemoteAddr = "127.0.0.1:0" // the address audit and fairness see
	in.Proto, in.ProtoMajor, in.ProtoMinor = "HTTP/2.0", 2, 0
	if in.Body == nil {
		in.Body = http.NoBody
	}
	r, w := io.Pipe()
	out := &response{header: http.Header{}, pipe: w, started: make(chan struct{}), gone: make(chan bool, 1), req: req}
	out.body = &responseBody{PipeReader: r, done: cancel}
	go func() {
		defer l.calls.Done()
		defer unhook()
		defer closeBody(in)
		defer out.finish()
		l.handler.ServeHTTP(out, in)
	}()
	select {
	case <-out.started:
		return out.response(), nil
	case <-ctx.Done():
		cancel()
		_ = r.CloseWithError(ctx.Err()) // always nil
		return nil, ctx.Err()
	}
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close() // nothing can be done about a body that will not close
	}
}
