package cell

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"sublet.dev/tenant-apiserver/server"
)

const (
	// startTimeout bounds one start of a control plane: it takes 0.2 s when warm;
	// the first of a version bootstraps the golden store.
	startTimeout = 2 * time.Minute
	// stopTimeout bounds a stop.
	stopTimeout = 20 * time.Second
)

// apart is once in a goroutine of its own: the deep stack that a start needs goes when
// the tenant falls asleep.
func (h *hosted) apart() (r *record, err error) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r, err = h.once()
	}()
	<-ended
	return r, err
}

// once starts the control plane and its companion, and returns when they have
// ended: with a record when the tenant may sleep, with an error unless it was stopped.
func (h *hosted) once() (r *record, err error) {
	kubelet := lateHandler{debut: newDebut()}
	h.awake()
	// Before anything else, so that it is seen that somebody waits.
	if err := h.openGate(); err != nil {
		return nil, err
	}
	api, err := h.start(&kubelet)
	if err != nil {
		return nil, err
	}
	defer h.outgoing.Close()
	defer func() {
		if stopErr := h.end(api); stopErr != nil {
			err = fmt.Errorf("%w: %w", cmp.Or(err, errEnded), stopErr)
		} else if r != nil {
			h.leave(api)
		}
	}()
	h.cell.ran.Store(true)
	defer h.api.Store(nil)
	h.begin(api)
	if err := h.certify(); err != nil { // they may have changed while it started
		return nil, err
	}
	if err := markStarted(h.cell.config.Dir(h.tenant.ID)); err != nil {
		return nil, err
	}
	h.carried = server.Carried{}
	h.debut.Store(kubelet.debut)
	defer h.debut.Store(nil)
	h.gate.resume()
	ctx, cancel := context.WithCancel(h.ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	served, rested := make(chan error, 1), make(chan *record, 1)
	group.Go(func() { served <- api.Serve(ctx, h.gate.session()) })
	group.Go(func() { h.accompany(ctx, api, &kubelet) })
	group.Go(func() { rested <- h.rest(ctx, api) })
	select {
	case <-h.ctx.Done():
		return nil, nil
	case h.task = <-h.tasks:
		return nil, nil
	case <-api.Done():
		return nil, errEnded
	case r := <-rested:
		return r, nil
	case err := <-served:
		if err == nil { // it is ending; Stop tells why
			return nil, errEnded
		}
		return nil, fmt.Errorf("%w: %w", errEnded, err)
	}
}

// end stops the control plane.
func (h *hosted) end(api *server.Server) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(h.ctx), stopTimeout)
	defer cancel()
	return api.Stop(ctx)
}

// leave keeps what the next control plane is to have of this one, which has stopped, for
// the tenant falls asleep.
func (h *hosted) leave(api *server.Server) {
	c, err := api.Carry()
	if err = errors.Join(err, leave(h.cell.config.Dir(h.tenant.ID), c)); err != nil {
		h.log.Warn("the tenant will be able to tell that it slept", "error", err)
	}
}

// awake notes that the tenant is to run: whoever wanted to wake it has his will.
func (h *hosted) awake() {
	select {
	case <-h.wake:
	default:
	}
	h.set(Starting, "", "")
}

// start starts the control plane from the tenant's directory.
func (h *hosted) start(kubelet http.Handler) (*server.Server, error) {
	t := h.tenant
	dir := h.cell.config.Dir(t.ID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the tenant's directory: %w", err)
	}
	existing, err := hasStarted(dir)
	if err != nil {
		return nil, err
	}
	etcd, err := t.Etcd.Config()
	if err != nil {
		return nil, err
	}
	file := ""
	if etcd == nil {
		file = storePath(dir)
		if err := checkStore(dir); err != nil {
			return nil, err
		}
	}
	authority, err := h.load(existing)
	if err != nil {
		return nil, err
	}
	if h.outgoing, err = h.dialer(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(h.ctx, startTimeout)
	defer cancel()
	leave, err := h.cell.starting.enter(ctx, h.gate.wanted)
	if err != nil {
		return nil, err
	}
	defer leave()
	return server.Start(ctx, server.Config{
		Name:              t.Name,
		ID:                string(t.ID),
		StorePath:         file,
		Etcd:              etcd,
		Existing:          existing,
		KeyFile:           h.cell.config.keyFile(t.ID),
		KMS:               h.cell.config.KMS,
		GoldenDir:         h.cell.config.GoldenDir,
		PKI:               authority,
		ServiceCIDR:       t.ServiceCIDR,
		SecondServiceCIDR: t.SecondServiceCIDR,
		Advertise:         t.InCluster,
		ServingNames:      []string{t.ServerName},
		Kubelet:           kubelet,
		Metrics:           currentMetrics{h},
		Dial:              h.outgoing.DialContext,
		DialIssuer:        h.outgoing.DialPublic,
		ValidatePod:       func(p *corev1.Pod) error { return h.cell.config.ValidatePod(t.Tenant, p, *h.terms.Load()) },
		Judge:             h.judge,
		Terms:             *h.terms.Load(),
		AuditLog:          AuditLog(dir),
		AuditWebhook:      h.cell.config.AuditWebhook,
		Carried:           h.carried,
		Logger:            h.log,
	})
}

// PKIDir returns where the keys are in a tenant's directory.
func PKIDir(dir string) string { return filepath.Join(dir, "pki") }
