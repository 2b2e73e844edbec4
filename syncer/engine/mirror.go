package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"sublet.dev/isolation/tenant"
)

// ErrForeign says that an object stands under a name of ours but was not made by
// us for that owner. It is never written, deleted or adopted.
var ErrForeign = errors.New("not ours")

// ErrUnseen says that an object exists that the cache does not show yet; it will.
var ErrUnseen = errors.New("written, but not yet seen")

// Object is an API object: a pointer to one of the API's types.
type Object interface {
	comparable
	metav1.Object
}

// Writer writes one kind in one namespace. The typed clients of client-go are
// Writers.
type Writer[T Object] interface {
	Create(ctx context.Context, object T, o metav1.CreateOptions) (T, error)
	Update(ctx context.Context, object T, o metav1.UpdateOptions) (T, error)
	Delete(ctx context.Context, name string, o metav1.DeleteOptions) error
}

// Target is the side of a Mirror that is written.
type Target[T Object] interface {
	// Cached returns the object from the cache. It is shared: do not change it.
	Cached(name tenant.Name) (T, bool)
	// Live reads the object from the API.
	Live(ctx context.Context, name tenant.Name) (T, bool, error)
	// Owner returns the UID of the source object that the object was made for, or
	// an error that is ErrForeign.
	Owner(object T) (types.UID, error)
	// Writer returns what writes the object of that name.
	Writer(name tenant.Name) Writer[T]
}

// Want is what a Mirror's target must be. Make it with Be, Gone or Leave.
type Want[T Object] struct {
	verdict verdict
	object  T
	grace   *int64
	// Again asks for another pass after that time; 0 does not.
	Again time.Duration
}

type verdict int

const (
	leave verdict = iota
	be
	gone
)

// Be wants the target to be object.
func Be[T Object](object T) Want[T] { return Want[T]{verdict: be, object: object} }

// Gone wants no target. grace is the deletion grace in seconds, nil for the
// object's own.
func Gone[T Object](grace *int64) Want[T] { return Want[T]{verdict: gone, grace: grace} }

// Leave wants the target to stay as it is, there or not.
func Leave[T Object]() Want[T] { return Want[T]{} }

// Difference is what Merge found.
type Difference int

// What a target needs to become what is wanted.
const (
	// Same: nothing.
	Same Difference = iota
	// Changed: an update.
	Changed
	// Immutable: the difference cannot be written; the target is deleted and made
	// again.
	Immutable
)

// Mirror keeps one target object for every source object. It must not be copied.
type Mirror[S, T Object] struct {
	Name   string
	Source func(name tenant.Name) (S, bool)
	Target Target[T]
	// Want says what the target must be. have is nil when there is none.
	Want func(ctx context.Context, source S, have T) (Want[T], error)
	// Merge returns a copy of have with everything from want that differs. Of what is
	// the same it may return have itself.
	Merge func(have, want T) (T, Difference)
	// OrphanGrace is the deletion grace in seconds of a target whose source is
	// gone; nil for the object's own.
	OrphanGrace *int64

	unseen unseen // of the targets
}

// Kind returns the name.
func (m *Mirror[S, T]) Kind() string { return m.Name }

// Unseen says whether the target under a name was made just now, and the cache does not
// show it yet.
func (m *Mirror[S, T]) Unseen(name tenant.Name) bool {
	if _, seen := m.Target.Cached(name); seen {
		return false
	}
	return m.unseen.expects(name)
}

// Reconcile does the next write on the target, if any.
func (m *Mirror[S, T]) Reconcile(ctx context.Context, name tenant.Name) (time.Duration, error) {
	source, hasSource := m.Source(name)
	have, exists := m.Target.Cached(name)
	if exists {
		m.unseen.forget(name)
		owner, err := m.Target.Owner(have)
		if err != nil {
			return 0, err
		}
		if !hasSource || owner != source.GetUID() {
			return 0, m.remove(ctx, name, have, m.OrphanGrace)
		}
	}
	if !hasSource {
		m.unseen.forget(name)
		return 0, nil
	}
	if left := m.unseen.left(name, source.GetUID()); !exists && left > 0 {
		return left, nil
	}
	want, err := m.Want(ctx, source, have)
	if err != nil {
		return 0, err
	}
	switch {
	case want.verdict == leave:
	case want.verdict == gone && exists:
		err = m.remove(ctx, name, have, want.grace)
	case want.verdict == gone:
	case exists:
		err = m.update(ctx, name, have, want.object)
	default:
		err = m.create(ctx, name, want.object, source.GetUID())
	}
	return want.Again, err
}

// create makes the target. When one is there that the cache did not show, its
// owner decides: ours is left to the next pass, a stale one is deleted.
func (m *Mirror[S, T]) create(ctx context.Context, name tenant.Name, want T, owner types.UID) error {
	_, err := m.Target.Writer(name).Create(ctx, want, metav1.CreateOptions{})
	if err == nil {
		m.unseen.note(name, owner)
	}
	if !apierrors.IsAlreadyExists(err) {
		return wrap("create", name, err)
	}
	have, exists, err := m.Target.Live(ctx, name)
	if err != nil || !exists {
		return wrap("create", name, err)
	}
	has, err := m.Target.Owner(have)
	switch {
	case err != nil:
		return wrap("create", name, err)
	case has != owner:
		return m.remove(ctx, name, have, m.OrphanGrace)
	}
	if _, seen := m.Target.Cached(name); seen {
		return nil
	}
	return wrap("create", name, ErrUnseen)
}

func (m *Mirror[S, T]) update(ctx context.Context, name tenant.Name, have, want T) error {
	if have.GetDeletionTimestamp() != nil {
		return nil // its deletion brings us back
	}
	merged, difference := m.Merge(have, want)
	switch difference {
	case Changed:
		_, err := m.Target.Writer(name).Update(ctx, merged, metav1.UpdateOptions{})
		return wrap("update", name, err)
	case Immutable:
		return m.remove(ctx, name, have, m.OrphanGrace)
	default:
		return nil
	}
}

// remove deletes have, and nothing else that may stand under its name by now. One
// that is being deleted is left alone unless grace is shorter.
func (m *Mirror[S, T]) remove(ctx context.Context, name tenant.Name, have T, grace *int64) error {
	if have.GetDeletionTimestamp() != nil {
		left := have.GetDeletionGracePeriodSeconds()
		if grace == nil || left == nil || *left <= *grace {
			return nil
		}
	}
	uid := have.GetUID()
	err := m.Target.Writer(name).Delete(ctx, have.GetName(), metav1.DeleteOptions{
		GracePeriodSeconds: grace,
		Preconditions:      &metav1.Preconditions{UID: &uid},
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return wrap("delete", name, err)
}

func wrap(verb string, name tenant.Name, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s the counterpart of %s: %w", verb, name, err)
}
