package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"google.golang.org/grpc/metadata"
)

const (
	listed   = 10_000
	pageSize = 500 // what kubectl and informers ask for
	watchers = 100
	// fillers are the callers that make what is read; more of them than a
	// phase has, to be done sooner.
	fillers = 64
)

const objects = "/registry/configmaps/"

// populate makes n objects.
func populate(ctx context.Context, c *kubernetes.Client, t task, n int) error {
	t.Writers = fillers
	var all sync.WaitGroup
	errs := make([]error, fillers)
	for i, w := range newWriters(c, t) {
		all.Go(func() {
			for len(w.made) < (n+fillers-1-i)/fillers {
				// kine refuses a part of what is written at the same time.
				if err := w.create(ctx); err != nil {
					w.failed++
					if w.failed > n || !t.MayFail {
						errs[i] = err
						return
					}
				}
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// fill makes objects, and nothing is measured.
func fill(ctx context.Context, t task) ([]phase, error) {
	c, closing, err := t.connect()
	if err != nil {
		return nil, err
	}
	return nil, errors.Join(populate(ctx, c, t, t.Objects), closing())
}

// lists reads 10,000 objects whole and in pages.
func lists(ctx context.Context, t task) (phases []phase, err error) {
	c, closing, err := t.connect()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closing()) }()
	if err := populate(ctx, c, t, listed); err != nil {
		return nil, err
	}
	w := newWriters(c, t)[:1]
	for _, l := range []struct {
		name string
		page int64
	}{{"list", listed}, {"list-pages", pageSize}} {
		p, err := together(ctx, t, l.name, w, t.Seconds, func(_ *writer, ctx context.Context) error { return list(ctx, c, l.page) })
		if err != nil {
			return nil, err
		}
		phases = append(phases, p)
	}
	return phases, nil
}

// list reads all objects at one revision, as upstream's storage does.
func list(ctx context.Context, c *kubernetes.Client, page int64) error {
	n, o := 0, kubernetes.ListOptions{Limit: page}
	for {
		res, err := c.Kubernetes.List(ctx, objects, o)
		if err != nil {
			return err
		}
		n += len(res.Kvs)
		if res.Count == int64(len(res.Kvs)) {
			break
		}
		if o.Revision == 0 {
			o.Revision = res.Revision
		}
		o.Continue = string(res.Kvs[len(res.Kvs)-1].Key) + "\x00"
	}
	if n != listed {
		return fmt.Errorf("a list has %d objects of %d", n, listed)
	}
	return nil
}

// watch has 100 watches, each on a stream of its own as those of upstream's
// watch caches are, see the same objects created: first one after the other at
// a steady pace, then as fast as the writers can.
func watch(ctx context.Context, t task) (phases []phase, err error) {
	c, closing, err := t.connect()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closing()) }()
	const pace = 20 * time.Millisecond
	paced, err := t.delivery(ctx, c, "watch-paced", func(ctx context.Context, begun *sync.Map) (int, error) {
		one := t
		one.Writers = 1
		w, n := newWriters(c, one)[0], int(max(t.Seconds, 1)*float64(time.Second/pace))
		ticker := time.NewTicker(pace)
		defer ticker.Stop()
		for range n {
			<-ticker.C
			begun.Store(w.nextKey(), time.Now())
			if err := w.create(ctx); err != nil {
				return 0, err
			}
		}
		return n, nil
	})
	if err != nil {
		return nil, err
	}
	rushed, err := t.delivery(ctx, c, "watch", func(ctx context.Context, begun *sync.Map) (int, error) {
		n := 2000
		if t.Size > 1<<10 {
			n = 500
		}
		var all sync.WaitGroup
		errs := make([]error, t.Writers)
		for i, w := range newWriters(c, t) {
			w.id += 1000
			all.Go(func() {
				for len(w.made) < n/t.Writers {
					begun.Store(w.nextKey(), time.Now())
					if err := w.create(ctx); err != nil && !t.MayFail {
						errs[i] = err
						return
					} else if err != nil {
						w.failed++
					}
				}
			})
		}
		all.Wait()
		return n / t.Writers * t.Writers, errors.Join(errs...)
	})
	return []phase{paced, rushed}, err
}

// delivery counts, from the first write until the last watcher has seen the
// last one. Latency is from the begin of a write to its event's arrival.
func (t task) delivery(ctx context.Context, c *kubernetes.Client, name string, write func(context.Context, *sync.Map) (int, error)) (phase, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	now, err := c.Kubernetes.Get(ctx, objects, kubernetes.GetOptions{})
	if err != nil {
		return phase{}, err
	}
	channels := make([]clientv3.WatchChan, watchers)
	for i := range channels {
		own := metadata.AppendToOutgoingContext(clientv3.WithRequireLeader(ctx), "stream", fmt.Sprint(name, i))
		channels[i] = c.Watch(own, objects, clientv3.WithPrefix(), clientv3.WithRev(now.Revision+1), clientv3.WithPrevKV(), clientv3.WithCreatedNotify())
		if r := <-channels[i]; !r.Created {
			return phase{}, fmt.Errorf("the watch did not begin: %w", r.Err())
		}
	}
	before, err := t.cpu()
	if err != nil {
		return phase{}, err
	}
	var begun sync.Map
	began := time.Now()
	total := make(chan int, watchers)
	took := make([][]time.Duration, watchers)
	errs := make([]error, watchers)
	var all sync.WaitGroup
	for i, events := range channels {
		all.Go(func() { took[i], errs[i] = receive(events, &begun, total) })
	}
	n, err := write(ctx, &begun)
	if err != nil {
		return phase{}, err
	}
	for range watchers {
		total <- n
	}
	all.Wait()
	if err := cmp.Or(errs...); err != nil {
		return phase{}, err
	}
	p := phase{Name: fmt.Sprintf("%s/%dKiB/%d", name, t.Size>>10, watchers), Seconds: time.Since(began).Seconds()}
	after, err := t.cpu()
	p.CPU = after - before
	var merged []time.Duration
	for _, d := range took {
		merged = append(merged, d...)
	}
	p.quantiles(merged)
	return p, err
}

// receive takes events until it has as many as it is told there are.
func receive(events clientv3.WatchChan, begun *sync.Map, total <-chan int) (took []time.Duration, err error) {
	n := -1
	for n < 0 || len(took) < n {
		select {
		case n = <-total:
			total = nil // the others' shares are in it
		case r, ok := <-events:
			if !ok || r.Err() != nil {
				return took, fmt.Errorf("the watch ended: %w", r.Err())
			}
			now := time.Now()
			for _, e := range r.Events {
				at, known := begun.Load(string(e.Kv.Key))
				if !known {
					return took, fmt.Errorf("an event of %s, which nobody wrote", e.Kv.Key)
				}
				took = append(took, now.Sub(at.(time.Time)))
			}
		}
	}
	return took, nil
}
