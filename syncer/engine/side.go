package engine

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"sublet.dev/isolation/tenant"
)

// Reader reads one kind in one namespace. The typed clients of client-go are
// Readers.
type Reader[T Object] interface {
	Get(ctx context.Context, name string, o metav1.GetOptions) (T, error)
}

// Host is a tenant's host namespace as a Target, for one kind.
type Host[T Object] struct {
	Tenant tenant.Tenant
	Cache  cache.Store // of the tenant's host namespace
	Read   Reader[T]
	Write  Writer[T]
	// Suffix is appended to the tenant's name of the object, for objects that we
	// derive from one of another kind. It contains a character that no name may
	// have, so no tenant can take the name.
	Suffix string
}

// HostName returns the host's name of the object.
func (h Host[T]) HostName(name tenant.Name) tenant.HostName {
	return h.Tenant.ID.HostName(tenant.Name{Namespace: name.Namespace, Name: name.Name + h.Suffix})
}

// Cached implements Target.
func (h Host[T]) Cached(name tenant.Name) (T, bool) {
	return FromCache[T](h.Cache, h.Tenant.HostNamespace+"/"+string(h.HostName(name)))
}

// Live implements Target.
func (h Host[T]) Live(ctx context.Context, name tenant.Name) (T, bool, error) {
	return live(ctx, h.Read, string(h.HostName(name)))
}

// Owner implements Target. An object without our marks, or with the marks of
// another tenant or name, is ErrForeign.
func (h Host[T]) Owner(object T) (types.UID, error) {
	owner, err := tenant.ReadOwner(object.GetName(), object.GetLabels(), object.GetAnnotations())
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrForeign, err)
	}
	if owner.Tenant != h.Tenant.ID {
		return "", fmt.Errorf("%w: host object %q belongs to another tenant", ErrForeign, object.GetName())
	}
	return types.UID(owner.UID), nil
}

// Writer implements Target.
func (h Host[T]) Writer(tenant.Name) Writer[T] { return h.Write }

// Views is the tenant's objects of a kind without namespaces as a Target: views that we
// made, and what the tenant made in or beside their places.
type Views[T Object] struct {
	Cache cache.Store // of the tenant's objects
	API   interface {
		Reader[T]
		Writer[T]
	}
	// Of returns the UID of what an object is a view of, "" for a view of something that
	// is gone, or an error that is ErrForeign for what the tenant made itself.
	Of func(view T) (types.UID, error)
}

// Cached implements Target.
func (v Views[T]) Cached(name tenant.Name) (T, bool) { return FromCache[T](v.Cache, name.Name) }

// Live implements Target.
func (v Views[T]) Live(ctx context.Context, name tenant.Name) (T, bool, error) {
	return live(ctx, v.API, name.Name)
}

// Owner implements Target.
func (v Views[T]) Owner(view T) (types.UID, error) { return v.Of(view) }

// Writer implements Target.
func (v Views[T]) Writer(tenant.Name) Writer[T] { return v.API }

// FromCache returns the object of that key. It is shared: do not change it.
func FromCache[T Object](store cache.Store, key string) (T, bool) {
	var none T
	item, exists, err := store.GetByKey(key)
	if err != nil || !exists {
		return none, false // a store in memory gives no error
	}
	object, ok := item.(T)
	return object, ok
}

// live reads an object; one that is not there is no error.
func live[T Object](ctx context.Context, r Reader[T], name string) (T, bool, error) {
	var none T
	object, err := r.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return none, false, nil
	}
	if err != nil {
		return none, false, err
	}
	return object, true, nil
}
