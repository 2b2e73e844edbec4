package kube

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"sync"
	"time"

	apiserverinternal "k8s.io/apiserver/pkg/apis/apiserver"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// Instance is one complete control plane. It is made by New and runs once.
type Instance struct {
	opts        Options
	parts       *parts
	servers     *servers
	building    sync.Mutex     // held by Build
	taken       bool           // Build makes nothing any more; guarded by building
	controllers *controllers   // guarded by building
	scheduler   *hostScheduler // guarded by building
	prepared    runner
	handler     http.Handler
	documents   *openAPIV2

	// life is the context that everything made by New and Run lives in; Run
	// ends it.
	cancel context.CancelFunc
	life   context.Context
	// hooks are closed by upstream as its start hooks are through, and hooked when all are.
	hooks  []<-chan struct{}
	hooked chan struct{}
	// ran says that upstream's server has taken care of its storage.
	ran bool
	// control is closed when controllers are to run.
	control     chan struct{}
	controlOnce sync.Once
}

// runner is upstream's prepared API server.
type runner interface {
	RunWithContext(context.Context) error
}

// New constructs a control plane. Nothing runs before Run; an Instance that is
// not run must be closed with Discard. Prepare must have succeeded. ctx gives
// values; it does not bound the life of the instance.
func New(ctx context.Context, o Options) (_ *Instance, err error) {
	if o.Ahead == nil {
		o.Ahead = NewAhead()
		defer o.Ahead.Wait()
	}
	constructMu.Lock()
	defer constructMu.Unlock()
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	i := &Instance{opts: o, life: life, cancel: cancel, control: make(chan struct{}), hooked: make(chan struct{})}
	defer func() {
		if err != nil {
			i.Discard()
		}
	}()
	if o.Host == nil {
		if err := measureNoQueues(); err != nil {
			return nil, err
		}
	}
	if i.parts, err = newParts(life, o); err != nil {
		return nil, err
	}
	if i.servers, err = i.parts.buildServers(); err != nil {
		return nil, err
	}
	if err := checkHooks(i.servers.front.GenericAPIServer, i.parts.disabled); err != nil {
		return nil, err
	}
	if err := i.prepare(); err != nil {
		return nil, err
	}
	i.hooks, err = hookSignals(i.servers.front.GenericAPIServer)
	return i, err
}

// Build constructs controllers and scheduler. It may be called once, beside Run and
// before Control: some controllers ask the API while they are constructed, and the
// handler answers already. Their handlers are held until they are whole, since the
// informers may run.
func (i *Instance) Build() (err error) {
	if i.opts.Template {
		return nil
	}
	i.building.Lock()
	defer i.building.Unlock()
	if i.taken {
		return errNotServing // it has stopped
	}
	constructMu.Lock()
	defer constructMu.Unlock()
	defer i.parts.informers.Hold()()
	if i.controllers, err = i.parts.newControllers(i.life); err != nil {
		return err
	}
	if i.opts.Host != nil {
		i.scheduler, err = i.parts.newScheduler(i.life)
	}
	return err
}

// prepare makes the handler.
func (i *Instance) prepare() error {
	kube, front, extensions := i.servers.kube, i.servers.front.GenericAPIServer, i.servers.extensions.GenericAPIServer
	if err := errors.Join(dropChecks(kube, front), dropChecks(extensions, front)); err != nil {
		return err
	}
	// Not the aggregator's own, which would merge OpenAPI documents of every type
	// for every instance. For every path the mux writes down the stack, which takes
	// half as long where that is short.
	prepared := make(chan runner, 1)
	go func() { prepared <- front.PrepareRun() }()
	i.prepared = <-prepared
	shared := sharedOpenAPI()
	first := !shared.described.Load()
	if first {
		shared.describe(i.parts.described, kube.Handler.GoRestfulContainer, front.Handler.GoRestfulContainer, extensions.Handler.GoRestfulContainer)
	}
	if err := sharedExtensions().serve(extensions); err != nil {
		return err
	}
	i.parts.extensionTypes.Definitions = nil // what is built of them is built
	i.parts.described = nil
	var documents http.Handler = extensions.Handler.NonGoRestfulMux
	i.parts.documents.extensions.Store(&documents)
	i.documents = &openAPIV2{remotes: i.servers.front.remotes.documents, life: i.life}
	shared.install(kube.Handler.NonGoRestfulMux, extensions.Handler.NonGoRestfulMux, i.documents)
	for path, own := range i.opts.Paths {
		kube.Handler.NonGoRestfulMux.Handle(path, own.Handler)
	}
	for _, server := range []*genericapiserver.GenericAPIServer{kube, front, extensions} {
		if err := shareServer(server, !first); err != nil {
			return err
		}
	}
	for _, informer := range []cache.SharedIndexInformer{
		i.servers.extensions.Informers.Apiextensions().V1().CustomResourceDefinitions().Informer(),
		i.servers.front.APIRegistrationInformers.Apiregistration().V1().APIServices().Informer(),
	} {
		if err := shrinkRings(informer); err != nil {
			return err
		}
	}
	i.handler = front.Handler
	i.parts.loopback.serve(i.handler)
	return nil
}

// Handler answers requests of clients, authentication included.
func (i *Instance) Handler() http.Handler { return i.handler }

// Loopback is a client configuration that reaches the control plane in
// process, as cluster administrator; a copy each call.
func (i *Instance) Loopback() *rest.Config {
	c := rest.CopyConfig(i.parts.generic.LoopbackClientConfig)
	c.ContentType = ""
	return c
}

// SetIssuers makes these the issuers whose tokens are taken beside the control
// plane's own, from now on.
func (i *Instance) SetIssuers(c *apiserverinternal.AuthenticationConfiguration) error {
	return i.parts.issuers.Set(c)
}

// SetClientCAs makes these, PEM-encoded, the CAs whose certificates clients may have and
// that clients are told to know the API server by, from now on. What was made with a
// certificate of others is not closed. CSRs are signed by the CA that is in the files of
// Options.PKI, as soon as it is seen that they have changed.
func (i *Instance) SetClientCAs(bundlePEM []byte) error { return i.parts.clientCA.set(bundlePEM) }

// NewInformers returns informers of built-in objects that read the storage and not
// the API, without resyncs and without managed fields. They are the caller's, who has
// to shut them down before the storage closes. Values of ctx are kept.
func (i *Instance) NewInformers(ctx context.Context) (informers.SharedInformerFactory, error) {
	return i.parts.newInformers(ctx, 0)
}

// Control lets the controllers and the scheduler of Build run, beside Run. Until then nobody
// competes with the first answers. It is idempotent.
func (i *Instance) Control() { i.controlOnce.Do(func() { close(i.control) }) }

// Run runs the control plane until ctx ends, and returns when all of it has
// stopped. Storage must stay open until then. Controllers run from Control on.
func (i *Instance) Run(ctx context.Context) error {
	defer i.Discard()
	stopControllers := i.start()
	stopKubelet, err := i.serveKubelet()
	if err != nil {
		return errors.Join(err, stopControllers())
	}
	// Controllers go before the API server they write to.
	serverCtx, stopServer := context.WithCancel(i.life)
	failed := make(chan error, 1)
	i.ran = true
	keeping := i.fill(ctx, serverCtx)
	keeping.Go(func() { i.awaitHooks(serverCtx) })
	go func() { failed <- i.prepared.RunWithContext(serverCtx) }()
	var runErr error
	select {
	case <-ctx.Done():
		err = stopControllers()
		stopServer()
		runErr = <-failed
	case runErr = <-failed:
		err = stopControllers()
	}
	stopServer()
	keeping.Wait()
	return errors.Join(runErr, err, stopKubelet())
}

// fillTime bounds fill: informers that take longer fill while hooks run.
const fillTime = 2 * time.Second

// fill makes the first objects of a new control plane, starts the API servers'
// informers, which live as long as life, and waits until they know what there is.
// Upstream's start hooks look for that at once and then every 100 ms, and a tenant
// that is woken would wait for their second look. What is returned is done after life.
func (i *Instance) fill(ctx, life context.Context) *sync.WaitGroup {
	keeping := &sync.WaitGroup{}
	if !i.opts.Template {
		if err := i.parts.seeds.make(ctx); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "The first objects are made more slowly", "controlPlane", i.opts.Name)
		}
	}
	factories := []interface {
		Start(stop <-chan struct{})
		WaitForCacheSync(stop <-chan struct{}) map[reflect.Type]bool
	}{i.parts.informers, i.servers.extensions.Informers, i.servers.front.APIRegistrationInformers}
	for _, f := range factories {
		f.Start(life.Done())
	}
	wait, cancel := context.WithTimeout(ctx, fillTime)
	defer cancel()
	for _, f := range factories {
		f.WaitForCacheSync(wait.Done())
	}
	keeping.Go(func() { i.forgetStacks(life) })
	if !i.parts.disabled[hookServiceCIDR] {
		keeping.Go(func() { i.parts.services.run(life) })
	}
	return keeping
}

// registered is when the aggregator has long registered the paths of built-in APIs.
const registered = 10 * time.Second

// forgetStacks drops the stacks that the aggregator's mux has kept since prepare.
func (i *Instance) forgetStacks(life context.Context) {
	select {
	case <-time.After(registered):
		if err := dropStacks(i.servers.front.GenericAPIServer.Handler.NonGoRestfulMux); err != nil {
			klog.FromContext(life).Error(err, "Memory is kept for nothing", "controlPlane", i.opts.Name)
		}
	case <-life.Done():
	}
}

// start runs controllers and scheduler once Control was called. The function it
// returns stops them and waits. Those that were not to run by then still begin: only their
// running ends what their making has begun.
func (i *Instance) start() func() error {
	ctx, cancel := context.WithCancel(i.life)
	var wg sync.WaitGroup
	var failure error
	wg.Go(func() {
		select {
		case <-i.control:
		case <-ctx.Done():
		}
		controllers, scheduler := i.built()
		if controllers != nil {
			wg.Go(func() { controllers.run(ctx) })
		}
		if scheduler == nil {
			return
		}
		if err := scheduler.run(ctx); err != nil && ctx.Err() == nil {
			failure = err
		}
	})
	return func() error {
		cancel()
		wg.Wait()
		return failure
	}
}

// built returns what Build has made, once it is through; it makes nothing afterwards.
func (i *Instance) built() (*controllers, *hostScheduler) {
	i.building.Lock()
	defer i.building.Unlock()
	i.taken = true
	return i.controllers, i.scheduler
}

// serveKubelet runs the in-process kubelet, if there is one.
func (i *Instance) serveKubelet() (stop func() error, err error) {
	if i.opts.Kubelet == nil || i.parts.dial.listener == nil {
		return func() error { return nil }, nil
	}
	server := &http.Server{Handler: i.opts.Kubelet, ReadHeaderTimeout: 30 * time.Second}
	done := make(chan error, 1)
	go func() { done <- server.Serve(i.parts.dial.listener) }()
	return func() error {
		err := server.Close()
		if served := <-done; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
		return err
	}, nil
}

// Discard releases an instance that is not going to run. It is idempotent.
func (i *Instance) Discard() {
	i.cancel()
	if i.parts == nil {
		return
	}
	i.parts.loopback.close()
	if i.parts.issuers != nil {
		i.parts.issuers.Close()
	}
	i.parts.informers.Shutdown()
	if i.servers == nil {
		return
	}
	i.servers.front.remotes.wait()
	if i.documents != nil {
		i.documents.close()
	}
	if !i.ran {
		i.servers.front.GenericAPIServer.Destroy()
	}
}
