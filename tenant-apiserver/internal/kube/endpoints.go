package kube

import (
	"fmt"
	"net"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/kubernetes/pkg/controlplane/reconcilers"
)

// endpointInterval is how often the `kubernetes` Service and its endpoints are
// looked at. A look reads caches; it is short because upstream makes the
// Service in the same rhythm, and the first try may come too early.
const endpointInterval = time.Second

// advertised keeps the endpoints of the `kubernetes` Service at the advertised
// address. The address is the provider's choice and stays when the control
// plane stops: pods of a sleeping tenant still find the door that wakes it.
type advertised struct {
	reconcilers.EndpointReconciler
	endpoints corelisters.EndpointsLister
	slices    discoverylisters.EndpointSliceLister
	stopping  atomic.Bool
}

// endpointReconciler is what upstream calls to keep the endpoints.
func (p *parts) endpointReconciler() (reconcilers.EndpointReconciler, error) {
	if !p.opts.Advertise.IsValid() {
		return reconcilers.NewNoneEndpointReconciler(), nil
	}
	client, err := kubernetes.NewForConfig(p.generic.LoopbackClientConfig)
	if err != nil {
		return nil, fmt.Errorf("endpoints: %w", err)
	}
	adapter := reconcilers.NewEndpointsAdapter(client.CoreV1(), client.DiscoveryV1())
	return &advertised{
		EndpointReconciler: reconcilers.NewMasterCountEndpointReconciler(1, adapter),
		endpoints:          p.informers.Core().V1().Endpoints().Lister(),
		slices:             p.informers.Discovery().V1().EndpointSlices().Lister(),
	}, nil
}

// ReconcileEndpoints implements reconcilers.EndpointReconciler. It asks the API
// only when the caches show something else.
func (a *advertised) ReconcileEndpoints(service string, ip net.IP, ports []corev1.EndpointPort, reconcilePorts bool) error {
	if a.shown(service, ip.String(), ports) {
		return nil
	}
	return a.EndpointReconciler.ReconcileEndpoints(service, ip, ports, reconcilePorts)
}

func (a *advertised) shown(service, ip string, ports []corev1.EndpointPort) bool {
	e, err := a.endpoints.Endpoints(metav1.NamespaceDefault).Get(service)
	if err != nil || len(e.Subsets) != 1 || len(e.Subsets[0].Addresses) != 1 || len(e.Subsets[0].Ports) != len(ports) {
		return false
	}
	s, err := a.slices.EndpointSlices(metav1.NamespaceDefault).Get(service)
	if err != nil || len(s.Endpoints) != 1 || len(s.Endpoints[0].Addresses) != 1 || len(s.Ports) != len(ports) {
		return false
	}
	for i, port := range ports {
		shown := s.Ports[i].Port
		if e.Subsets[0].Ports[i].Port != port.Port || shown == nil || *shown != port.Port {
			return false
		}
	}
	return e.Subsets[0].Addresses[0].IP == ip && s.Endpoints[0].Addresses[0] == ip
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
