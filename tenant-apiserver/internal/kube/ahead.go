package kube

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"unsafe"

	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/mutating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/validating"
)

// Ahead is what a control plane needs and what depends on nothing that is its own:
// upstream's admission plugins for webhooks. Each makes environments for expressions, which
// takes longer than all other plugins, and is made beside the opening of the store.
type Ahead struct {
	made       chan struct{} // closed when the others are set
	mutating   admission.Interface
	validating admission.Interface
	err        error
}

// NewAhead begins to make it, for one control plane (Options.Ahead). The caller must Wait.
func NewAhead() *Ahead {
	a := &Ahead{made: make(chan struct{})}
	go func() {
		defer close(a.made)
		var errs [2]error
		a.mutating, errs[0] = mutating.NewMutatingWebhook(nil)
		a.validating, errs[1] = validating.NewValidatingAdmissionWebhook(nil)
		a.err = errors.Join(errs[:]...)
	}()
	return a
}

// Wait returns when it is made.
func (a *Ahead) Wait() { <-a.made }

// fieldFactories are what plugins are made by.
const fieldFactories = "registry"

// use makes the plugins that are there the ones that plugins gives out, once.
func (a *Ahead) use(plugins *admission.Plugins) error {
	a.Wait()
	if a.err != nil {
		return fmt.Errorf("plugins for webhooks: %w", a.err)
	}
	field := reflect.ValueOf(plugins).Elem().FieldByName(fieldFactories)
	if !field.IsValid() || field.Type() != reflect.TypeFor[map[string]admission.Factory]() {
		return fmt.Errorf("admission plugins are not registered as in Kubernetes %s: review internal/kube", Version)
	}
	factories := *(*map[string]admission.Factory)(unsafe.Pointer(field.UnsafeAddr()))
	for name, plugin := range map[string]admission.Interface{mutating.PluginName: a.mutating, validating.PluginName: a.validating} {
		if factories[name] == nil {
			return fmt.Errorf("there is no admission plugin %s, as in Kubernetes %s: review internal/kube", name, Version)
		}
		factories[name] = func(io.Reader) (admission.Interface, error) { return plugin, nil }
	}
	return nil
}
