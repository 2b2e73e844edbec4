package kube

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"unsafe"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	genericapiserver "k8s.io/apiserver/pkg/server"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggregatorapiserver "k8s.io/kube-aggregator/pkg/apiserver"
)

// Fields of upstream's aggregator and its mux.
const (
	fieldHandlers = "proxyHandlers"
	fieldHandled  = "handledGroupVersions"
	fieldGroup    = "groupName"
)

// handleBuiltIn has the aggregator know the built-in APIs that are served behind it
// before its controller tells it of their APIServices, which then finds them. It is what
// that would do for each, with the mux made anew once instead of for every path.
func handleBuiltIn(s *aggregatorapiserver.APIAggregator, versions []schema.GroupVersion) error {
	at := slices.IndexFunc(versions, func(v schema.GroupVersion) bool { return v.Group != "" })
	if at < 0 {
		return fmt.Errorf("no built-in APIs, unlike in Kubernetes %s: review internal/kube", Version)
	}
	model := versions[at]
	if err := s.AddAPIService(&apiregistrationv1.APIService{
		ObjectMeta: metav1.ObjectMeta{Name: serviceName(model)}, Spec: apiregistrationv1.APIServiceSpec{Group: model.Group, Version: model.Version},
	}); err != nil {
		return fmt.Errorf("aggregator: %w", err)
	}
	handlers, err := unexported(s, fieldHandlers, nil)
	if err != nil {
		return err
	}
	handled, err := unexported(s, fieldHandled, reflect.TypeFor[map[string]sets.Set[string]]())
	if err != nil {
		return err
	}
	paths, err := openMux(s.GenericAPIServer.Handler.NonGoRestfulMux)
	if err != nil {
		return err
	}
	defer paths.close()
	one, err := copier(handlers, serviceName(model))
	if err != nil {
		return err
	}
	group := paths.exact["/apis/"+model.Group]
	groups := *(*map[string]sets.Set[string])(unsafe.Pointer(handled.UnsafeAddr()))
	for i, v := range versions {
		if i == at {
			continue
		}
		handler := one(serviceName(v))
		if v.Group == "" {
			paths.add("/api", handler, true)
			continue
		}
		paths.add("/apis/"+v.String(), handler, true)
		if known := groups[v.Group]; known != nil {
			known.Insert(v.Version)
			continue
		}
		groups[v.Group] = sets.New(v.Version)
		ofGroup, err := copyFor(group, v.Group)
		if err != nil {
			return err
		}
		paths.add("/apis/"+v.Group, ofGroup, false)
	}
	return nil
}

// builtInVersions are the versions behind the aggregator that upstream makes APIServices of.
func builtInVersions(behind *genericapiserver.GenericAPIServer) []schema.GroupVersion {
	listed := sets.New(behind.ListedPaths()...)
	var versions []schema.GroupVersion
	for v := range priorities() {
		if listed.Has(apiRoot(v.Group) + "/" + v.String()) {
			versions = append(versions, v)
		}
	}
	return versions
}

// serviceName is what the APIService of a version is called.
func serviceName(v schema.GroupVersion) string { return v.Version + "." + v.Group }

// copier makes copies of the handler that the aggregator has for one APIService, and has it
// use them for others.
func copier(handlers reflect.Value, model string) (func(name string) http.Handler, error) {
	changed := fmt.Errorf("the aggregator's field %s is not what it was in Kubernetes %s: review internal/kube", fieldHandlers, Version)
	of := handlers.Type()
	if of.Kind() != reflect.Map || of.Key().Kind() != reflect.String || of.Elem().Kind() != reflect.Pointer || !of.Elem().Implements(reflect.TypeFor[http.Handler]()) {
		return nil, changed
	}
	first := handlers.MapIndex(reflect.ValueOf(model))
	if !first.IsValid() || first.IsNil() {
		return nil, changed
	}
	return func(name string) http.Handler {
		copied := reflect.New(of.Elem().Elem())
		copied.Elem().Set(first.Elem())
		handlers.SetMapIndex(reflect.ValueOf(name), copied)
		return copied.Interface().(http.Handler)
	}, nil
}

// copyFor makes a copy of a group's handler for another group.
func copyFor(handler http.Handler, group string) (http.Handler, error) {
	v := reflect.ValueOf(handler)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return nil, fmt.Errorf("the aggregator does not handle groups as in Kubernetes %s: review internal/kube", Version)
	}
	copied := reflect.New(v.Type().Elem())
	copied.Elem().Set(v.Elem())
	name := copied.Elem().FieldByName(fieldGroup)
	if !name.IsValid() || name.Kind() != reflect.String {
		return nil, fmt.Errorf("the aggregator does not handle groups as in Kubernetes %s: review internal/kube", Version)
	}
	*(*string)(unsafe.Pointer(name.UnsafeAddr())) = group
	return copied.Interface().(http.Handler), nil
}
