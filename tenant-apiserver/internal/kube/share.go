package kube

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"unsafe"

	restful "github.com/emicklei/go-restful/v3"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/kubernetes/pkg/printers"
	printersinternal "k8s.io/kubernetes/pkg/printers/internalversion"
	printerstorage "k8s.io/kubernetes/pkg/printers/storage"
)

// What upstream's constructors make anew for every control plane, although it is
// equal for all, is replaced by one of the process before the first request. Some of
// it is in fields that are not exported; each function here fails when it does not
// find what Kubernetes Version has there.

// fewestTables is how many stores with upstream's printers there are at least; in
// Kubernetes 1.37 there are 87, those of subresources included.
const fewestTables = 60

var tables = sync.OnceValue(func() printerstorage.TableConvertor {
	return printerstorage.TableConvertor{TableGenerator: printers.NewTableGenerator().With(printersinternal.AddHandlers)}
})

// shareTables gives all stores of groups the process's printers of tables instead of
// one set of some hundred each.
func shareTables(groups []*genericapiserver.APIGroupInfo) error {
	found := map[*genericregistry.Store]bool{}
	for _, group := range groups {
		for _, resources := range group.VersionedResourcesStorageMap {
			for _, storage := range resources {
				storesOf(reflect.ValueOf(storage), found, 4)
			}
		}
	}
	shared := 0
	for store := range found {
		if _, ok := store.TableConvertor.(printerstorage.TableConvertor); ok {
			store.TableConvertor = tables()
			shared++
		}
	}
	if shared < fewestTables {
		return fmt.Errorf("only %d stores with printers of tables: registries are not what they were in Kubernetes %s: review internal/kube", shared, Version)
	}
	return nil
}

// storesOf finds the generic stores in a registry's storage, which subresources have
// in fields that are not exported. It follows registry types only.
func storesOf(v reflect.Value, found map[*genericregistry.Store]bool, depth int) {
	if !v.IsValid() || depth == 0 {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return
		}
		if store := reflect.TypeFor[*genericregistry.Store](); v.Type() == store {
			found[(*genericregistry.Store)(v.UnsafePointer())] = true
			return
		}
		if strings.HasPrefix(v.Type().Elem().PkgPath(), "k8s.io/kubernetes/pkg/registry/") {
			storesOf(v.Elem(), found, depth-1)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			storesOf(v.Field(i), found, depth)
		}
	}
}

// paths are the compiled paths of routes, of the whole process, by the path.
var paths = struct {
	sync.Mutex
	of map[string]unsafe.Pointer
}{of: map[string]unsafe.Pointer{}}

// shareServer shares what a constructed server has. It does not serve yet. routes says
// whether that is so for its routes, which are left alone when documents are still to
// be rendered of them.
func shareServer(server *genericapiserver.GenericAPIServer, routes bool) error {
	if err := dropStacks(server.Handler.NonGoRestfulMux); err != nil {
		return err
	}
	if !routes {
		return nil
	}
	return shareRoutes(server.Handler.GoRestfulContainer)
}

// dropStacks shortens what a mux says if a path is registered twice: it keeps the
// text of a stack for each path. The mux may serve.
func dropStacks(m *mux.PathRecorderMux) error {
	v := reflect.ValueOf(m).Elem()
	lock, field := v.FieldByName("lock"), v.FieldByName("pathStacks")
	if !lock.IsValid() || lock.Type() != reflect.TypeFor[sync.Mutex]() || !field.IsValid() || field.Type() != reflect.TypeFor[map[string]string]() {
		return fmt.Errorf("paths are not recorded as they were in Kubernetes %s: review internal/kube", Version)
	}
	mu := (*sync.Mutex)(unsafe.Pointer(lock.UnsafeAddr()))
	mu.Lock()
	defer mu.Unlock()
	stacks := *(*map[string]string)(unsafe.Pointer(field.UnsafeAddr()))
	for path := range stacks {
		stacks[path] = "an earlier registration"
	}
	return nil
}

// shareRoutes makes the routes of a container use compiled paths of the process, and
// drops what describes them: OpenAPI documents are not made of these. The
// container does not serve yet, but for services that this was done with before.
func shareRoutes(container *restful.Container) error {
	paths.Lock()
	defer paths.Unlock()
	for _, service := range container.RegisteredWebServices() {
		v := reflect.ValueOf(service).Elem()
		routes := v.FieldByName("routes")
		if !routes.IsValid() || routes.Type() != reflect.TypeFor[[]restful.Route]() {
			return fmt.Errorf("go-restful does not keep its routes where Kubernetes %s had it: review internal/kube", Version)
		}
		if err := sharePath(v, service.RootPath()); err != nil {
			return err
		}
		all := *(*[]restful.Route)(unsafe.Pointer(routes.UnsafeAddr()))
		for i := range all {
			route := &all[i]
			if err := sharePath(reflect.ValueOf(route).Elem(), route.Path); err != nil {
				return err
			}
			if undescribed(route) {
				continue
			}
			route.ParameterDocs, route.ResponseErrors, route.DefaultResponse, route.Metadata = nil, nil, nil, nil
			route.ReadSample, route.WriteSample, route.WriteSamples = nil, nil, nil
		}
	}
	return nil
}

// undescribed says whether a route's description is gone. Services that control planes
// share may serve already, and must not be written to.
func undescribed(r *restful.Route) bool {
	return r.ParameterDocs == nil && r.ResponseErrors == nil && r.DefaultResponse == nil && r.Metadata == nil &&
		r.ReadSample == nil && r.WriteSample == nil && r.WriteSamples == nil
}

// sharePath replaces the field pathExpr of a route or a service by the process's one
// for the same path. The caller holds paths.
func sharePath(v reflect.Value, path string) error {
	field := v.FieldByName("pathExpr")
	if !field.IsValid() || field.Kind() != reflect.Pointer || field.IsNil() {
		return fmt.Errorf("go-restful does not keep compiled paths where Kubernetes %s had it: review internal/kube", Version)
	}
	// Routes have the path below that of their service in it, services their own.
	key := v.Type().Name() + " " + path
	at := (*unsafe.Pointer)(unsafe.Pointer(field.UnsafeAddr()))
	if shared, ok := paths.of[key]; ok {
		if *at != shared {
			*at = shared
		}
		return nil
	}
	paths.of[key] = *at
	return nil
}
