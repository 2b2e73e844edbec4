package kube

import (
	"context"
	"fmt"
	"reflect"
	"unsafe"

	genericapiserver "k8s.io/apiserver/pkg/server"
)

// fieldHookDone is the channel that upstream closes when a start hook is through; health
// checks look at it.
const fieldHookDone = "done"

// hookSignals are those channels. Whoever waits for them need not ask for readiness again
// and again.
func hookSignals(s *genericapiserver.GenericAPIServer) ([]<-chan struct{}, error) {
	var signals []<-chan struct{}
	for _, registered := range reflect.ValueOf(s.PostStartHooks()).Seq2() {
		entry := reflect.New(registered.Type()).Elem() // what is in a map has no address
		entry.Set(registered)
		if entry.Kind() != reflect.Struct {
			return nil, fmt.Errorf("start hooks are not what they were in Kubernetes %s: review internal/kube", Version)
		}
		done := entry.FieldByName(fieldHookDone)
		if !done.IsValid() || done.Type() != reflect.TypeFor[chan struct{}]() || done.IsNil() {
			return nil, fmt.Errorf("start hooks do not say when they are through as in Kubernetes %s: review internal/kube", Version)
		}
		signals = append(signals, *(*chan struct{})(unsafe.Pointer(done.UnsafeAddr())))
	}
	if len(signals) == 0 {
		return nil, fmt.Errorf("no start hooks, unlike in Kubernetes %s: review internal/kube", Version)
	}
	return signals, nil
}

// Hooked is closed when all of upstream's start hooks are through. What else readiness
// depends on may take a moment longer.
func (i *Instance) Hooked() <-chan struct{} { return i.hooked }

// awaitHooks tells of Hooked, unless life ends before.
func (i *Instance) awaitHooks(life context.Context) {
	for _, through := range i.hooks {
		select {
		case <-through:
		case <-life.Done():
			return
		}
	}
	close(i.hooked)
}
