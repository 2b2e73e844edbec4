// Package syncer runs one tenant's pods on the host: spec down, status up.
//
// A [Syncer] watches the tenant's API (all namespaces) and the tenant's one host
// namespace, and keeps them in step with the passes that kinds lists:
//
//	down  Pod, ConfigMap, Secret, TrustAnchors, Service, EndpointSlice, NetworkPolicy
//	up    PodStatus (binding, status, end), PodEvents, Node, NodeStatus
//
// and with those of the plan's rules for custom resources, which come and go.
//
// The engine package does the work, the translate package says what an object is
// on the other side, the hostcache package watches the host namespace; this package holds the clients, the caches, the fan-out from
// an observed object to the keys that depend on it, and the few steps that need an
// API (service account tokens, certificates of pods, bindings). The patrol package has everything compared
// slowly, whatever was observed. [Syncer.Kubelet] answers the tenant
// API's kubelet connections (logs, exec, attach, port-forward) through the host's
// API.
//
// It reads the host with one identity and writes it with the tenant's own, which
// can write that tenant's host namespace only. It never adopts a host object,
// never trusts a tenant's status, never imports the tenant's API server or the
// host's agent: they meet at the Kubernetes APIs.
package syncer
