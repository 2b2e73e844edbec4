package kube

import (
	"net"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/kubernetes/pkg/controlplane/reconcilers"
)

// advertised keeps the endpoints of the `kubernetes` Service at the advertised
// address. The address is the provider's choice and stays when the control
// plane stops: pods of a sleeping tenant still find the door that wakes it.
type advertised struct {
	reconcilers.EndpointReconciler
	stopping atomic.Bool
}

// StopReconciling implements reconcilers.EndpointReconciler.
func (a *advertised) StopReconciling() {
	a.stopping.Store(true)
	a.EndpointReconciler.StopReconciling()
}

// RemoveEndpoints implements reconcilers.EndpointReconciler. At the start,
// upstream takes success for a sign of an earlier crash.
func (a *advertised) RemoveEndpoints(service string, _ net.IP, _ []corev1.EndpointPort) error {
	if a.stopping.Load() {
		return nil
	}
	return storage.NewKeyNotFoundError(service, 0)
}

// ValidateIP implements reconcilers.EndpointReconciler; writing an address
// that Kubernetes does not allow fails later, and visibly.
func (a *advertised) ValidateIP(net.IP) error { return nil }
