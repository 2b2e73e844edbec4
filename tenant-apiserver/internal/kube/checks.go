package kube

import (
	"fmt"
	"reflect"
	"slices"
	"unsafe"

	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/healthz"
)

// Fields of upstream's API servers: the checks behind /healthz, /livez and /readyz.
var fieldsOfChecks = []string{"healthzRegistry", "livezRegistry", "readyzRegistry"}

// dropChecks takes the health checks away from a server that is behind another one which
// has them, too, and answers for their paths: each would have paths of its own, and the
// mux takes its time for every one. What front does not have stays.
func dropChecks(behind, front *genericapiserver.GenericAPIServer) error {
	for _, name := range fieldsOfChecks {
		asked, err := checksOf(front, name)
		if err != nil {
			return err
		}
		unasked, err := checksOf(behind, name)
		if err != nil {
			return err
		}
		names := map[string]bool{}
		for _, check := range *asked {
			names[check.Name()] = true
		}
		// A new slice: configurations of servers share them.
		*unasked = slices.DeleteFunc(slices.Clone(*unasked), func(c healthz.HealthChecker) bool { return names[c.Name()] })
	}
	return nil
}

// checksOf is one of a server's lists of checks.
func checksOf(s *genericapiserver.GenericAPIServer, name string) (*[]healthz.HealthChecker, error) {
	registry := reflect.ValueOf(s).Elem().FieldByName(name)
	if registry.Kind() == reflect.Struct {
		if checks := registry.FieldByName("checks"); checks.IsValid() && checks.Type() == reflect.TypeFor[[]healthz.HealthChecker]() {
			return (*[]healthz.HealthChecker)(unsafe.Pointer(checks.UnsafeAddr())), nil
		}
	}
	return nil, fmt.Errorf("health checks are not in the field %s as in Kubernetes %s: review internal/kube", name, Version)
}
