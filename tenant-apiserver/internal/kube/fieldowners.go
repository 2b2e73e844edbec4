package kube

import (
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	fieldschema "sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// ownersConverter is upstream's converter for objects whose fields' owners are noted
// (managedFields), which is done for every write. Upstream compares an object of a
// built-in type with the schema of that type first, twice for each write, and the
// schema was made from the type: that takes longer than to find what was changed. Here
// the first object of a kind is compared, and what clients apply, which has no type yet.
type ownersConverter struct {
	managedfields.TypeConverter
	known sync.Map // schema.GroupVersionKind -> typeOf
}

// typeOf is a kind's type in upstream's schema.
type typeOf struct {
	schema *fieldschema.Schema
	ref    fieldschema.TypeRef
}

// ObjectToTyped implements managedfields.TypeConverter.
func (c *ownersConverter) ObjectToTyped(object runtime.Object, o ...typed.ValidationOptions) (*typed.TypedValue, error) {
	makeStackRoom() // it is called in the goroutine that writes
	if _, untyped := object.(*unstructured.Unstructured); untyped || !duplicatesAllowed(o) {
		return c.TypeConverter.ObjectToTyped(object, o...)
	}
	kind := object.GetObjectKind().GroupVersionKind()
	if known, ok := c.known.Load(kind); ok {
		if of, ok := known.(typeOf); ok {
			return of.typed(object)
		}
	}
	converted, err := c.TypeConverter.ObjectToTyped(object, o...)
	if err == nil {
		c.known.Store(kind, typeOf{converted.Schema(), converted.TypeRef()})
	}
	return converted, err
}

// duplicatesAllowed says whether a list may have an item twice, as what is stored may: then
// there is nothing that an object of a Go type could lack.
func duplicatesAllowed(o []typed.ValidationOptions) bool {
	return len(o) == 1 && o[0] == typed.AllowDuplicates
}

func (t typeOf) typed(object runtime.Object) (*typed.TypedValue, error) {
	v, err := value.NewValueReflect(object)
	if err != nil {
		return nil, err
	}
	//lint:ignore SA1019 it is deprecated because to validate is said to cost little: it is half of all the work on owners
	return typed.AsTypedUnvalidated(v, t.schema, t.ref), nil
}
