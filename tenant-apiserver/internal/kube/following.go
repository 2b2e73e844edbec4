package kube

import (
	"context"
	"errors"
	"time"

	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// following is a controller of upstream's that is told the CAs when it is made, and
// writes them to where others find them: when they change, another takes its place.
type following struct {
	name  string
	of    *trusted
	hold  func() (release func()) // of handlers that are added to informers
	build func(ctx context.Context, bundlePEM []byte, to *borrower) (run func(context.Context, int), err error)

	next *follower // the one to run first
}

// follower is one that was made for some CAs.
type follower struct {
	run     func(context.Context, int)
	over    <-chan struct{} // closed when there are others
	borrows *borrower
}

// make makes one for the present CAs.
func (f *following) make(ctx context.Context) (*follower, error) {
	now, over := f.of.current()
	made := &follower{over: over, borrows: &borrower{}}
	defer f.hold()()
	var err error
	if made.run, err = f.build(ctx, now.CurrentCABundleContent(), made.borrows); err != nil {
		return nil, errors.Join(err, made.borrows.giveBack())
	}
	return made, nil
}

// Name implements kcm.Controller.
func (f *following) Name() string { return f.name }

// Run implements kcm.Controller. The first one runs even when ctx has ended: only running
// ends what its making has begun.
func (f *following) Run(ctx context.Context) {
	for f.next != nil || ctx.Err() == nil {
		if f.next == nil {
			var err error
			if f.next, err = f.make(ctx); err != nil {
				klog.FromContext(ctx).Error(err, "A controller cannot be built; trying again", "controller", f.name)
				select {
				case <-time.After(buildRetry):
				case <-ctx.Done():
				}
				continue
			}
		}
		f.next.follow(ctx)
		if err := f.next.borrows.giveBack(); err != nil {
			klog.FromContext(ctx).Error(err, "Handlers are kept for nothing", "controller", f.name)
		}
		f.next = nil
	}
}

// follow runs it until the CAs are others.
func (f *follower) follow(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.run(ctx, 1)
	}()
	select {
	case <-f.over:
		cancel()
	case <-ctx.Done():
	}
	<-ended
}

// borrower remembers the handlers that a controller has added to informers: upstream's
// never remove theirs.
type borrower struct{ back []func() error }

// giveBack removes them.
func (b *borrower) giveBack() error {
	var errs []error
	for _, back := range b.back {
		errs = append(errs, back())
	}
	b.back = nil
	return errors.Join(errs...)
}

// lent is an informer with its lister that is lent to a borrower.
type lent[L any] struct {
	informer lentInformer
	lister   L
}

func lend[L any](to *borrower, from interface {
	Informer() cache.SharedIndexInformer
	Lister() L
}) lent[L] {
	return lent[L]{informer: lentInformer{from.Informer(), to}, lister: from.Lister()}
}

// Informer is as upstream's.
func (l lent[L]) Informer() cache.SharedIndexInformer { return l.informer }

// Lister is as upstream's.
func (l lent[L]) Lister() L { return l.lister }

type lentInformer struct {
	cache.SharedIndexInformer
	to *borrower
}

// AddEventHandler implements cache.SharedInformer.
func (l lentInformer) AddEventHandler(h cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	return l.note(l.SharedIndexInformer.AddEventHandler(h))
}

// AddEventHandlerWithResyncPeriod implements cache.SharedInformer.
func (l lentInformer) AddEventHandlerWithResyncPeriod(h cache.ResourceEventHandler, resync time.Duration) (cache.ResourceEventHandlerRegistration, error) {
	return l.note(l.SharedIndexInformer.AddEventHandlerWithResyncPeriod(h, resync))
}

// AddEventHandlerWithOptions implements cache.SharedInformer.
func (l lentInformer) AddEventHandlerWithOptions(h cache.ResourceEventHandler, o cache.HandlerOptions) (cache.ResourceEventHandlerRegistration, error) {
	return l.note(l.SharedIndexInformer.AddEventHandlerWithOptions(h, o))
}

func (l lentInformer) note(r cache.ResourceEventHandlerRegistration, err error) (cache.ResourceEventHandlerRegistration, error) {
	if err == nil {
		l.to.back = append(l.to.back, func() error { return l.RemoveEventHandler(r) })
	}
	return r, err
}
