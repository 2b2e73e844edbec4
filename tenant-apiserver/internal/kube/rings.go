package kube

import (
	"fmt"
	"reflect"
	"unsafe"

	"k8s.io/client-go/tools/cache"
	ringbuffer "k8s.io/utils/buffer"
)

// shrinkRings gives the handlers of an informer of upstream's that does not run yet
// queues that grow when there is something in them: upstream makes room for a thousand
// notifications, 16 KB, for each.
func shrinkRings(informer cache.SharedIndexInformer) error {
	wrong := fmt.Errorf("informers (%T) are not what they were in Kubernetes %s: review internal/kube", informer, Version)
	v := reflect.ValueOf(informer)
	for v.Kind() == reflect.Pointer && v.Elem().Kind() == reflect.Struct { // it is wrapped for its type
		inner := v.Elem().FieldByName("SharedIndexInformer")
		if !inner.IsValid() || inner.Kind() != reflect.Interface {
			break
		}
		v = inner.Elem()
	}
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return wrong
	}
	started, processor := v.Elem().FieldByName("started"), v.Elem().FieldByName("processor")
	if !started.IsValid() || started.Kind() != reflect.Bool || !processor.IsValid() || processor.Kind() != reflect.Pointer {
		return wrong
	}
	listeners := processor.Elem().FieldByName("listeners")
	if started.Bool() || !listeners.IsValid() || listeners.Kind() != reflect.Map || listeners.Type().Key().Kind() != reflect.Pointer {
		return wrong
	}
	for _, listener := range listeners.MapKeys() {
		ring := listener.Elem().FieldByName("pendingNotifications")
		if !ring.IsValid() || ring.Type() != reflect.TypeFor[ringbuffer.TypedRingGrowing[any]]() {
			return wrong
		}
		*(*ringbuffer.TypedRingGrowing[any])(unsafe.Pointer(ring.UnsafeAddr())) = ringbuffer.TypedRingGrowing[any]{}
	}
	return nil
}
