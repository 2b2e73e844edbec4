package kube

import (
	"fmt"
	"runtime/debug"

	genericapiserver "k8s.io/apiserver/pkg/server"
	flowcontrolrest "k8s.io/kubernetes/pkg/registry/flowcontrol/rest"
	rbacrest "k8s.io/kubernetes/pkg/registry/rbac/rest"
	schedulingrest "k8s.io/kubernetes/pkg/registry/scheduling/rest"
)

// Names of upstream's start hooks that we switch off in some configurations.
// They are strings in upstream's code; checkHooks fails when one disappears.
const (
	hookRBAC            = rbacrest.PostStartHookName
	hookPriorityClasses = schedulingrest.PostStartHookName
	hookFlowSchemas     = flowcontrolrest.PostStartHookName
	hookNamespaces      = "start-system-namespaces-controller"
	hookAuthConfig      = "start-cluster-authentication-info-controller"
	hookTokenTracking   = "start-legacy-token-tracking-controller"
	hookKubernetes      = "bootstrap-controller"
	hookServiceCIDR     = "start-kubernetes-service-cidr-controller"
	hookServiceRepair   = "start-service-ip-repair-controllers"
	hookAPIDiscovery    = "apiservice-discovery-controller"
)

// checkFragile fails when the linked Kubernetes is not the one that this
// package was checked against: some of what it depends on are names in strings
// and orders of events, which the compiler does not see.
func checkFragile() error {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil // built without modules; the seam has checked itself
	}
	for _, m := range info.Deps {
		if m.Path == "k8s.io/kubernetes" && m.Version != Version {
			return fmt.Errorf("linked with Kubernetes %s, but written against %s: review internal/kube, then change its Version", m.Version, Version)
		}
	}
	return nil
}

// checkHooks compares the hooks of a server with the names that we disable. A
// name that is neither registered nor switched off was renamed upstream, and
// what it does would silently run, or silently not run.
func checkHooks(s *genericapiserver.GenericAPIServer, disabled map[string]bool) error {
	hooks := s.PostStartHooks()
	for _, name := range []string{
		hookRBAC, hookPriorityClasses, hookFlowSchemas, hookNamespaces, hookAuthConfig,
		hookTokenTracking, hookKubernetes, hookServiceCIDR, hookServiceRepair, hookAPIDiscovery,
	} {
		_, registered := hooks[name]
		if registered == disabled[name] {
			return fmt.Errorf("the start hook %q is not what it was in Kubernetes %s: review internal/kube", name, Version)
		}
	}
	return nil
}
