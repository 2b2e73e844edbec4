package engine

import (
	"context"
	"time"

	"sublet.dev/isolation/tenant"
)

// Adjust writes one part of an object that is on both sides: a status, or a
// subresource. It never creates or deletes.
type Adjust[S, T Object] struct {
	Name   string
	Source func(name tenant.Name) (S, bool)
	Target func(name tenant.Name) (T, bool)
	// Pair proves that the two belong together.
	Pair func(source S, target T) bool
	// Merge returns have (a copy, never have itself) with what source demands, and
	// whether that changed anything.
	Merge func(source S, have T) (T, bool)
	Write func(ctx context.Context, target T) error
}

// Kind returns the name.
func (a *Adjust[S, T]) Kind() string { return a.Name }

// Reconcile writes the target when it differs.
func (a *Adjust[S, T]) Reconcile(ctx context.Context, name tenant.Name) (time.Duration, error) {
	source, ok := a.Source(name)
	if !ok {
		return 0, nil
	}
	have, ok := a.Target(name)
	if !ok || !a.Pair(source, have) {
		return 0, nil
	}
	merged, changed := a.Merge(source, have)
	if !changed {
		return 0, nil
	}
	return 0, wrap("adjust", name, a.Write(ctx, merged))
}
