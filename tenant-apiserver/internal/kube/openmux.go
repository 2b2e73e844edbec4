package kube

import (
	"fmt"
	"net/http"
	"reflect"
	"sync"
	"unsafe"

	"k8s.io/apiserver/pkg/server/mux"
)

// openedMux is the inside of upstream's mux, which makes itself anew for every path that
// it is given. It is locked until close.
type openedMux struct {
	of       *mux.PathRecorderMux
	lock     *sync.Mutex
	exact    map[string]http.Handler
	prefixes map[string]http.Handler
	listed   *[]string
	stacks   map[string]string
	notFound http.Handler
}

func openMux(m *mux.PathRecorderMux) (*openedMux, error) {
	o := &openedMux{of: m}
	v := reflect.ValueOf(m).Elem()
	for name, into := range map[string]any{
		"lock": &o.lock, "exposedPaths": &o.listed,
	} {
		if err := fieldAt(v, name, reflect.ValueOf(into).Elem()); err != nil {
			return nil, err
		}
	}
	o.lock.Lock()
	for name, into := range map[string]any{
		"pathToHandler": &o.exact, "prefixToHandler": &o.prefixes, "pathStacks": &o.stacks, "notFoundHandler": &o.notFound,
	} {
		at := reflect.New(reflect.PointerTo(reflect.TypeOf(into).Elem())).Elem()
		if err := fieldAt(v, name, at); err != nil {
			o.lock.Unlock()
			return nil, err
		}
		reflect.ValueOf(into).Elem().Set(at.Elem())
	}
	return o, nil
}

// fieldAt puts the address of a field, whose type has to fit, into a pointer.
func fieldAt(v reflect.Value, name string, into reflect.Value) error {
	f := v.FieldByName(name)
	if !f.IsValid() || reflect.PointerTo(f.Type()) != into.Type() {
		return fmt.Errorf("the field %s of a mux is not what it was in Kubernetes %s: review internal/kube", name, Version)
	}
	into.Set(reflect.NewAt(f.Type(), unsafe.Pointer(f.UnsafeAddr())))
	return nil
}

// add has a handler answer for a path and for all below it, or for the path with and
// without a slash at its end. One that is there stays.
func (o *openedMux) add(path string, handler http.Handler, below bool) {
	if o.exact[path] != nil {
		return
	}
	o.exact[path] = handler
	*o.listed = append(*o.listed, path)
	if below {
		o.prefixes[path+"/"] = handler
	} else {
		o.exact[path+"/"] = handler
	}
	o.stacks[path], o.stacks[path+"/"] = "an earlier registration", "an earlier registration"
}

// close lets the mux know.
func (o *openedMux) close() {
	o.lock.Unlock()
	o.of.NotFoundHandler(o.notFound)
}
