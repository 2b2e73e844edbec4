package kube

import (
	"fmt"
	"reflect"
	"sync"
	"unsafe"

	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/generic"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/mutating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/validating"
	"k8s.io/apiserver/pkg/cel/environment"
)

// fieldConditions is the compiler of match conditions in upstream's webhook plugins.
const fieldConditions = "filterCompiler"

// conditions compiles the match conditions of webhooks. It holds the environments that
// expressions are compiled in, 400 KB, and nothing of what was compiled.
var conditions = sync.OnceValue(func() cel.ConditionCompiler {
	return cel.NewConditionCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
})

// conditionSharing is an admission.Decorator that gives the webhook plugins the
// process's compiler instead of one of their own.
type conditionSharing struct {
	shared int
	err    error
}

// webhookPlugins is how many plugins there are that it has to find.
const webhookPlugins = 2

// Decorate implements admission.Decorator. It returns the plugin.
func (c *conditionSharing) Decorate(plugin admission.Interface, _ string) admission.Interface {
	var w *generic.Webhook
	switch p := plugin.(type) {
	case *mutating.Plugin:
		w = p.Webhook
	case *validating.Plugin:
		w = p.Webhook
	default:
		return plugin
	}
	field := reflect.ValueOf(w).Elem().FieldByName(fieldConditions)
	if !field.IsValid() || field.Type() != reflect.TypeFor[cel.ConditionCompiler]() {
		c.err = fmt.Errorf("webhooks' field %s is not what it was in Kubernetes %s: review internal/kube", fieldConditions, Version)
		return plugin
	}
	*(*cel.ConditionCompiler)(unsafe.Pointer(field.UnsafeAddr())) = conditions()
	c.shared++
	return plugin
}

// check fails when not all were found.
func (c *conditionSharing) check() error {
	if c.err == nil && c.shared != webhookPlugins {
		return fmt.Errorf("%d webhook plugins are not the %d of Kubernetes %s: review internal/kube", c.shared, webhookPlugins, Version)
	}
	return c.err
}
