package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/client/v3/kubernetes"
)

// maxFailures ends a phase of a contender that does nothing but fail.
const maxFailures = 100_000

// object is a key that a writer made, with the revision it last saw.
type object struct {
	key string
	rev int64
}

// writer is one caller. Its objects are its own, as those of a namespace are.
type writer struct {
	c     *kubernetes.Client
	id    int
	value []byte
	made  []object
	next  int // object to update

	took   []time.Duration
	failed int
	last   error // of those that failed
}

func newWriters(c *kubernetes.Client, t task) []*writer {
	all := make([]*writer, t.Writers)
	for i := range all {
		all[i] = &writer{c: c, id: i, value: randomValue(t.Size, uint64(i))}
	}
	return all
}

// randomValue does not compress.
func randomValue(size int, seed uint64) []byte {
	v := make([]byte, size)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	r.Read(v)
	return v
}

var errConflict = errors.New("a key that nobody else writes has changed")

// nextKey is what create will make.
func (w *writer) nextKey() string {
	return fmt.Sprintf("%sns-%02d/object-%07d", objects, w.id, len(w.made)+w.failed)
}

func (w *writer) create(ctx context.Context) error {
	key := w.nextKey()
	res, err := w.c.Kubernetes.OptimisticPut(ctx, key, w.value, 0, kubernetes.PutOptions{})
	if err != nil {
		return err
	}
	if !res.Succeeded {
		return errConflict
	}
	w.made = append(w.made, object{key, res.Revision})
	return nil
}

func (w *writer) update(ctx context.Context) error {
	o := &w.made[w.next%len(w.made)]
	w.next++
	res, err := w.c.Kubernetes.OptimisticPut(ctx, o.key, w.value, o.rev, kubernetes.PutOptions{GetOnFailure: true})
	if err != nil {
		return err
	}
	if !res.Succeeded { // an earlier update failed, and took effect
		if res.KV != nil {
			o.rev = res.KV.ModRevision
		}
		return errConflict
	}
	o.rev = res.Revision
	return nil
}

func (w *writer) get(ctx context.Context) error {
	o := w.made[rand.IntN(len(w.made))]
	res, err := w.c.Kubernetes.Get(ctx, o.key, kubernetes.GetOptions{})
	if err == nil && (res.KV == nil || len(res.KV.Value) != len(w.value)) {
		err = fmt.Errorf("%s is not what was written", o.key)
	}
	return err
}

// repeat calls f until the time has come, and notes how long each call took.
func (w *writer) repeat(ctx context.Context, until time.Time, f func(context.Context) error) {
	for began := time.Now(); began.Before(until) && w.failed < maxFailures && ctx.Err() == nil; {
		err := f(ctx)
		now := time.Now()
		if err != nil {
			w.failed, w.last = w.failed+1, err
		} else {
			w.took = append(w.took, now.Sub(began))
		}
		began = now
	}
}

// together runs f in all writers for some seconds.
func together(ctx context.Context, t task, name string, writers []*writer, seconds float64, f func(*writer, context.Context) error) (phase, error) {
	for _, w := range writers {
		w.took, w.failed, w.last = w.took[:0], 0, nil
	}
	if err := touchMemory(); err != nil {
		return phase{}, err
	}
	before, err := t.cpu()
	if err != nil {
		return phase{}, err
	}
	began := time.Now()
	until := began.Add(time.Duration(seconds * 1e9))
	var all sync.WaitGroup
	for _, w := range writers {
		all.Go(func() { w.repeat(ctx, until, func(ctx context.Context) error { return f(w, ctx) }) })
	}
	all.Wait()
	p := phase{Name: fmt.Sprintf("%s/%dKiB/%dw", name, t.Size>>10, t.Writers), Seconds: time.Since(began).Seconds()}
	after, err := t.cpu()
	if err != nil {
		return phase{}, err
	}
	p.CPU = after - before
	var took []time.Duration
	var last error
	for _, w := range writers {
		took = append(took, w.took...)
		p.Failed += w.failed
		if w.last != nil {
			last = w.last
		}
	}
	if len(took) == 0 {
		return p, fmt.Errorf("nothing but failures: %w", last)
	}
	p.quantiles(took)
	if p.Failed > 0 && !t.MayFail {
		return p, fmt.Errorf("%d of %d failed: %w", p.Failed, p.Ops+p.Failed, last)
	}
	return p, ctx.Err()
}

// quantiles sorts what the operations took.
func (p *phase) quantiles(took []time.Duration) {
	slices.Sort(took)
	p.Ops, p.P50, p.P99 = len(took), took[len(took)/2], took[len(took)*99/100]
}

// writes creates, updates and gets.
func writes(ctx context.Context, t task) (phases []phase, err error) {
	c, closing, err := t.connect()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closing()) }()
	f, err := flush(t.Dir)
	if err != nil {
		return nil, err
	}
	phases = append(phases, f)
	if err := warmUp(ctx, c, t); err != nil {
		return nil, err
	}
	writers := newWriters(c, t)
	steps := []struct {
		name string
		do   func(*writer, context.Context) error
	}{{"create", (*writer).create}, {"update", (*writer).update}, {"get", (*writer).get}}
	if !t.Gets {
		steps = steps[:2]
	}
	for _, s := range steps {
		p, err := together(ctx, t, s.name, writers, t.Seconds, s.do)
		if err != nil {
			return phases, fmt.Errorf("%s: %w", s.name, err)
		}
		phases = append(phases, p)
	}
	return phases, nil
}

// warmUp writes for a moment, with keys of its own.
func warmUp(ctx context.Context, c *kubernetes.Client, t task) error {
	writers := newWriters(c, t)
	for _, w := range writers {
		w.id += 1000
	}
	_, err := together(ctx, t, "warm up", writers, 0.2, (*writer).create)
	return err
}

// sustained creates for long, and counts the time and the CPU until all is where
// it belongs: what a store leaves for later is paid when it is closed.
func sustained(ctx context.Context, t task) ([]phase, error) {
	c, closing, err := t.connect()
	if err != nil {
		return nil, err
	}
	before, err := t.cpu()
	if err != nil {
		return nil, errors.Join(err, closing())
	}
	began := time.Now()
	p, err := together(ctx, t, "sustained-create", newWriters(c, t), t.Seconds, (*writer).create)
	if err := errors.Join(err, closing()); err != nil {
		return nil, err
	}
	after, err := t.cpu()
	p.Seconds, p.CPU = time.Since(began).Seconds(), after-before
	return []phase{p}, err
}
