package syncer

import (
	"context"
	"errors"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/translate"
)

// The reasons of Services that do not reach as far as they ask.
const (
	reasonNoNodePorts    = "NodePortsNotOffered"
	reasonNodePortTaken  = "NodePortTaken"
	reasonNoLoadBalancer = "LoadBalancerNotOffered"
	reasonForeignAddress = "AddressNotOffered"
)

// serviceDown mirrors the tenant's Services. Node ports are one space for the whole
// host: it is asked for the tenant's numbers; if one is another's, for any, which the
// tenant's Service then gets (see givenPorts); if the plan has none, the Service
// works inside the cluster alone. In each case the tenant is told.
type serviceDown struct {
	*Syncer
	asked, free, inside, given engine.Pass
}

func (s *Syncer) services() engine.Pass {
	mirror := func(change func(*corev1.Service) *corev1.Service) engine.Pass {
		return &engine.Mirror[*corev1.Service, *corev1.Service]{
			Name:   kindService,
			Source: fromTenant[*corev1.Service](s.caches.tenant.services),
			Target: s.hostServices(),
			Want: be(func(tenantService *corev1.Service) *corev1.Service {
				if want := s.t.Service(tenantService); want != nil {
					return change(want)
				}
				return nil
			}),
			Merge: translate.MergeService,
		}
	}
	same := func(hostService *corev1.Service) *corev1.Service { return hostService }
	return &serviceDown{Syncer: s, asked: mirror(same), free: mirror(translate.AnyNodePorts), inside: mirror(translate.Inside), given: s.givenPorts()}
}

func (s *Syncer) hostServices() engine.Host[*corev1.Service] {
	ns := s.config.Tenant.HostNamespace
	return onHost[*corev1.Service](s, s.caches.host.services, s.hostRead.CoreV1().Services(ns), s.hostWrite.CoreV1().Services(ns), "")
}

// Kind implements engine.Pass.
func (p *serviceDown) Kind() string { return kindService }

// Reconcile implements engine.Pass.
func (p *serviceDown) Reconcile(ctx context.Context, name tenant.Name) (time.Duration, error) {
	before, onHost := p.hostServices().Cached(name)
	again, err := p.asked.Reconcile(ctx, name)
	tenantService, ok := fromTenant[*corev1.Service](p.caches.tenant.services)(name)
	if ok && err == nil && p.t.ForeignAddress(tenantService) {
		p.held.tell(tenantService, corev1.EventTypeWarning, reasonForeignAddress, "nothing answers at its address, which is not of your cluster's range: let it have one of "+p.config.Tenant.ServiceCIDR.String())
		return again, nil
	}
	if !ok || !translate.HasNodePorts(tenantService) {
		return again, err
	}
	switch {
	case apierrors.IsForbidden(err):
		again, err = p.inside.Reconcile(ctx, name)
		if err == nil && (!onHost || before.Spec.Type == corev1.ServiceTypeNodePort) {
			p.held.tell(tenantService, corev1.EventTypeWarning, reasonNoNodePorts, "it is reachable inside your cluster only: your plan has no node port, or no more")
		}
	case nodePortRefused(err):
		if again, err = p.free.Reconcile(ctx, name); err == nil {
			again, err = p.given.Reconcile(ctx, name)
		}
	}
	if !onHost && err == nil && tenantService.Spec.Type == corev1.ServiceTypeLoadBalancer {
		p.held.tell(tenantService, corev1.EventTypeWarning, reasonNoLoadBalancer, "no load balancer is offered: its external address stays pending")
	}
	return again, err
}

// nodePortRefused says whether the host refused a node port for its number.
func nodePortRefused(err error) bool {
	var status apierrors.APIStatus
	if !apierrors.IsInvalid(err) || !errors.As(err, &status) || status.Status().Details == nil {
		return false
	}
	for _, cause := range status.Status().Details.Causes {
		if strings.HasSuffix(cause.Field, ".nodePort") {
			return true
		}
	}
	return false
}

// givenPorts tells a tenant's Service which node ports it was given.
func (s *Syncer) givenPorts() engine.Pass {
	host := s.hostServices()
	return &engine.Adjust[*corev1.Service, *corev1.Service]{
		Name:   kindService,
		Source: host.Cached,
		Target: fromTenant[*corev1.Service](s.caches.tenant.services),
		Pair: func(hostService, tenantService *corev1.Service) bool {
			owner, err := host.Owner(hostService)
			return err == nil && owner == tenantService.UID
		},
		Merge: translate.NodePorts,
		Write: func(ctx context.Context, tenantService *corev1.Service) error {
			_, err := s.tenantAPI.CoreV1().Services(tenantService.Namespace).Update(ctx, tenantService, metav1.UpdateOptions{})
			if err == nil {
				s.held.tell(tenantService, corev1.EventTypeWarning, reasonNodePortTaken, "a node port that it asked for is not to be had: it got another")
			}
			return err
		},
	}
}
