package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/rest"

	"sublet.dev/tenant-apiserver/internal/kube"
	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/tenant-apiserver/plan"
	"sublet.dev/tenant-apiserver/store"
)

const (
	// readyPoll is how often Start looks whether the server is ready once its start
	// hooks are through, and hooksPoll how often before.
	readyPoll = 2 * time.Millisecond
	hooksPoll = 250 * time.Millisecond
	// readyTimeout bounds one look by Ready.
	readyTimeout = 5 * time.Second
)

// ErrStopped is returned by methods of a Server that has been stopped.
var ErrStopped = errors.New("the control plane has stopped")

// Server is a running control plane. Its methods are safe for concurrent use.
type Server struct {
	config   Config
	log      *slog.Logger
	instance *kube.Instance
	tls      *tls.Config
	loopback *rest.Config
	client   *http.Client
	file     *store.Store // nil: the store is an etcd
	rotation *rotation
	guard    *guard
	certs    *servingCert
	// authority is the state of it that holds now; Config.PKI is the one at the start.
	authority atomic.Pointer[pki.Authority]

	stop context.CancelCauseFunc
	life context.Context // ends when stopping begins
	up   chan struct{}   // closed when Start succeeds
	done chan struct{}   // closed when all has stopped

	first *first

	mu  sync.Mutex
	err error // why Run ended, when nobody asked for it
}

// Start opens or makes the store, and runs the control plane. It returns when
// storage and handler answer and upstream's start hooks are through; controllers
// begin with the first answer after that, or a moment later. ctx bounds only the start.
// An error leaves nothing running.
func Start(ctx context.Context, c Config) (*Server, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if err := kube.Prepare(); err != nil {
		return nil, wrap(c.Name, err)
	}
	c.terms = &atomic.Pointer[plan.Terms]{}
	c.terms.Store(&c.Terms)
	if c.AuditLog != "" {
		c.audit = &auditFile{path: c.AuditLog, max: auditSize}
	}
	begun := time.Now()
	defer makeRoom()()
	s, err := run(ctx, c)
	if err != nil {
		return nil, wrap(c.Name, err)
	}
	s.log.Info("control plane answers", "name", c.Name, "after", time.Since(begun))
	return s, nil
}

// run starts the control plane on the store's file and waits until it answers.
func run(ctx context.Context, c Config) (*Server, error) {
	ahead := kube.NewAhead()
	defer ahead.Wait()
	certs := &servingCert{config: c}
	certs.resume()
	if _, err := certs.get(nil); err != nil {
		return nil, err
	}
	st, err := openStorage(ctx, c)
	if err != nil {
		return nil, err
	}
	bootstrapped, write, err := st.bootstrap(ctx, c)
	if err != nil {
		return nil, errors.Join(err, st.close())
	}
	c.meter = c.newMeter(st)
	options := c.options(st, bootstrapped)
	options.Ahead = ahead
	instance, err := construct(ctx, options, write)
	if err != nil {
		return nil, errors.Join(err, st.close())
	}
	s := newServer(ctx, c, instance, certs)
	s.file = st.file
	s.rotation = newRotation(st, c.rotation, s.log.With("name", c.Name))
	go s.run(st)
	if err = instance.Build(); err == nil {
		err = s.waitReady(ctx, s.defaultNamespace)
	}
	if err == nil && !bootstrapped {
		err = st.markBootstrapped(ctx)
	}
	if err != nil {
		return nil, s.abandon(ctx, err)
	}
	close(s.up)
	return s, nil
}

// construct makes the control plane, and beside that what its store lacks.
func construct(ctx context.Context, o kube.Options, write func(context.Context) error) (*kube.Instance, error) {
	written := make(chan error, 1)
	go func() { written <- write(ctx) }()
	instance, err := kube.New(ctx, o)
	writeErr := <-written
	if err == nil && writeErr != nil {
		instance.Discard()
	}
	return instance, errors.Join(err, writeErr)
}

// abandon stops a server that did not start up, and returns why it did not.
func (s *Server) abandon(ctx context.Context, why error) error {
	err := s.Stop(context.WithoutCancel(ctx))
	if errors.Is(err, ErrStopped) {
		return err // it ended by itself, which is why
	}
	return errors.Join(why, err)
}

func newServer(ctx context.Context, c Config, instance *kube.Instance, certs *servingCert) *Server {
	s := &Server{
		config:   c,
		log:      c.logger(),
		instance: instance,
		certs:    certs,
		loopback: instance.Loopback(),
		guard:    newGuard(c.currentTerms, c.flow(), c.turn),
		done:     make(chan struct{}),
		up:       make(chan struct{}),
		first:    newFirst(),
		tls: &tls.Config{
			GetCertificate: certs.get,
			// The authenticator verifies certificates, and tokens need none.
			ClientAuth: tls.RequestClientCert,
			MinVersion: tls.VersionTLS12,
			NextProtos: []string{"h2", "http/1.1"},
		},
	}
	s.tls.GetConfigForClient = s.guard.handshake
	s.authority.Store(c.PKI)
	s.client = &http.Client{Transport: s.loopback.Transport}
	s.life, s.stop = context.WithCancelCause(context.WithoutCancel(ctx))
	return s
}

// run runs the instance and closes the store after it.
func (s *Server) run(st *storage) {
	defer close(s.done)
	var watch, beside sync.WaitGroup
	if st.file != nil {
		watch.Go(func() { s.stopWithStore(st.file) })
	}
	ctx, cancel := context.WithCancel(s.life)
	beside.Go(func() { s.rotation.run(ctx) })
	beside.Go(func() { s.control(ctx) })
	err := s.instance.Run(s.life)
	cancel()
	beside.Wait()
	err = errors.Join(err, st.close(), s.config.audit.Close())
	cause := context.Cause(s.life) // nil: the instance ended by itself
	s.stop(ErrStopped)
	watch.Wait()
	if errors.Is(cause, store.ErrFailed) {
		err = cause // what else went wrong follows from it
	} else if err == nil && cause != nil {
		return
	}
	if err == nil {
		err = errors.New("nobody asked for it")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = fmt.Errorf("%w: %w", ErrStopped, err)
}

// stopWithStore stops the server when its store goes out of service, because
// only opening it again helps. It returns when stopping begins.
func (s *Server) stopWithStore(st *store.Store) {
	select {
	case <-st.Failed():
		s.stop(st.Err())
	case <-s.life.Done():
	}
}

func (s *Server) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// waitReady waits until the server is ready and until has no objection, the
// server stops, or ctx ends. It looks when upstream's start hooks are through; before
// that it does so now and then, for who is told that it took too long.
func (s *Server) waitReady(ctx context.Context, until func(context.Context) error) error {
	hooked := s.instance.Hooked()
	tick := time.NewTicker(hooksPoll)
	defer tick.Stop()
	err := errors.New("the start hooks have begun")
	for {
		select {
		case <-hooked:
			hooked = nil
			tick.Reset(readyPoll)
		case <-tick.C:
		case <-s.done:
			return cmp.Or(s.failure(), ErrStopped)
		case <-ctx.Done():
			return fmt.Errorf("not ready in time: %w (%w)", err, context.Cause(ctx))
		}
		if err = s.ready(ctx); err == nil {
			err = until(ctx)
		}
		if err == nil {
			return nil
		}
	}
}

// Ready says whether the server answers and its storage works, as /readyz
// does. The error names the checks that fail.
func (s *Server) Ready() error {
	ctx, cancel := context.WithTimeout(s.life, readyTimeout)
	defer cancel()
	return s.ready(ctx)
}

func (s *Server) ready(ctx context.Context) error {
	status, body, err := s.get(ctx, "/readyz?verbose")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("checks that fail: %s", failing(string(body)))
	}
	return err
}

// defaultNamespace fails while the namespace that everybody starts in is not
// there yet.
func (s *Server) defaultNamespace(ctx context.Context) error {
	status, _, err := s.get(ctx, "/api/v1/namespaces/default")
	if err == nil && status != http.StatusOK {
		err = errors.New("there is no default namespace yet")
	}
	return err
}

func (s *Server) get(ctx context.Context, path string) (status int, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.loopback.Host+path, nil)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+s.loopback.BearerToken)
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, body, errors.Join(err, resp.Body.Close())
}

// Loopback is a configuration for clients in this process: no TLS, no socket,
// cluster administrator. Each call returns a copy.
func (s *Server) Loopback() *rest.Config { return rest.CopyConfig(s.loopback) }

// NewInformers returns informers of the control plane's built-in objects, for work
// that goes with it in this process: they read its storage, as its own controllers'
// do, and cost no requests. They have no resyncs and leave out managed fields. The
// caller shuts them down before the server is stopped.
func (s *Server) NewInformers(ctx context.Context) (informers.SharedInformerFactory, error) {
	f, err := s.instance.NewInformers(ctx)
	if err != nil {
		return nil, wrap(s.config.Name, err)
	}
	return f, nil
}

// Done is closed when the server has stopped, whether asked to or not.
func (s *Server) Done() <-chan struct{} { return s.done }

// Stop stops the server and closes its store. It returns when all of it has
// stopped or ctx ends; stopping goes on in that case. It is idempotent, and
// returns the error that stopped a server nobody had asked to stop.
func (s *Server) Stop(ctx context.Context) error {
	s.stop(ErrStopped)
	select {
	case <-s.done:
		return s.failure()
	case <-ctx.Done():
		return fmt.Errorf("stop control plane %s: %w", s.config.Name, context.Cause(ctx))
	}
}
