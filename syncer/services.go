package syncer

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
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

// serviceDown mirrors the tenant's Services, each in the first of the ways that the
// host takes: with what the plan offers, node ports are one space for the whole host,
// and how many there are of what is the host's quota to say. It is asked for the
// tenant's numbers; if one is another's, for any, which the tenant's Service then gets
// (see givenPorts). What works inside the cluster works always. The tenant is told.
type serviceDown struct {
	*Syncer
	balanced, bare, ported, inside way
	given                          engine.Pass
}

// way is how a Service may stand on the host.
type way struct {
	asked engine.Pass
	free  engine.Pass // with any node ports; nil: there are none
}

func (s *Syncer) services() engine.Pass {
	p := &serviceDown{Syncer: s, given: s.givenPorts()}
	same := func(hostService *corev1.Service) *corev1.Service { return hostService }
	p.balanced = way{p.mirror(p.balance), p.mirror(after(p.balance, translate.AnyNodePorts))}
	p.bare = way{asked: p.mirror(after(p.balance, translate.WithoutNodePorts))}
	p.ported = way{p.mirror(plain(same)), p.mirror(plain(translate.AnyNodePorts))}
	p.inside = way{asked: p.mirror(plain(translate.Inside))}
	return p
}

// change makes of the plainest host Service of a tenant's one that stands there in some
// way; nil leaves what is there.
type change func(hostService, tenantService, have *corev1.Service) *corev1.Service

func plain(f func(*corev1.Service) *corev1.Service) change {
	return func(hostService, _, _ *corev1.Service) *corev1.Service { return f(hostService) }
}

func after(f change, g func(*corev1.Service) *corev1.Service) change {
	return func(hostService, tenantService, have *corev1.Service) *corev1.Service {
		if changed := f(hostService, tenantService, have); changed != nil {
			return g(changed)
		}
		return nil
	}
}

func (p *serviceDown) balance(hostService, tenantService, have *corev1.Service) *corev1.Service {
	balanced, _ := p.balancers().Balance(hostService, tenantService, have)
	return balanced
}

func (p *serviceDown) mirror(f change) engine.Pass {
	return &engine.Mirror[*corev1.Service, *corev1.Service]{
		Name:   kindService,
		Source: fromTenant[*corev1.Service](p.caches.tenant.services),
		Target: p.hostServices(),
		Want: func(_ context.Context, tenantService, have *corev1.Service) (engine.Want[*corev1.Service], error) {
			want := p.t.Service(tenantService)
			if want == nil {
				return engine.Gone[*corev1.Service](nil), nil
			}
			if want = f(want, tenantService, have); want == nil {
				return engine.Leave[*corev1.Service](), nil
			}
			return engine.Be(want), nil
		},
		Merge: translate.MergeService,
	}
}

func (s *Syncer) hostServices() engine.Host[*corev1.Service] {
	ns := s.config.Tenant.HostNamespace
	return onHost[*corev1.Service](s, s.caches.host.services, s.hostRead.CoreV1().Services(ns), s.hostWrite.CoreV1().Services(ns), "")
}

// Kind implements engine.Pass.
func (p *serviceDown) Kind() string { return kindService }

// Reconcile implements engine.Pass.
func (p *serviceDown) Reconcile(ctx context.Context, name tenant.Name) (again time.Duration, err error) {
	before, onHost := p.hostServices().Cached(name)
	if !onHost {
		before = nil
	}
	tenantService, ok := fromTenant[*corev1.Service](p.caches.tenant.services)(name)
	if !ok {
		return p.inside.asked.Reconcile(ctx, name)
	}
	if p.t.ForeignAddress(tenantService) {
		if again, err = p.inside.asked.Reconcile(ctx, name); err == nil {
			p.held.tell(tenantService, corev1.EventTypeWarning, reasonForeignAddress, "nothing answers at its address, which is not of your cluster's range: let it have one of "+p.ranges())
		}
		return again, err
	}
	if second := p.t.ForeignSecond(tenantService); second != "" {
		p.held.tell(tenantService, corev1.EventTypeWarning, reasonForeignAddress, "nothing answers at "+second+", which is not of your cluster's range: let it have one of "+p.ranges())
	}
	ways, why := p.ways(tenantService, before)
	for _, w := range ways {
		if again, err = p.try(ctx, w, name); !apierrors.IsForbidden(err) {
			if err == nil {
				p.tellReach(tenantService, before, w, why)
			}
			break
		}
		if p.replanned.recently(p.config.Clock.Now()) {
			again = replanRetry // the host's quota may be about to follow the plan
		}
	}
	return again, err
}

// ranges are those of the tenant's addresses.
func (s *Syncer) ranges() string {
	var all []string
	for _, r := range s.config.Tenant.ServiceRanges() {
		all = append(all, r.String())
	}
	return strings.Join(all, " or ")
}

// ways lists how a Service may stand on the host, the best first; why says what keeps
// it from a load balancer.
func (p *serviceDown) ways(tenantService, before *corev1.Service) (ways []way, why string) {
	if tenantService.Spec.Type == corev1.ServiceTypeLoadBalancer {
		why = "your plan has no load balancer, or no more"
		has := before != nil && before.Spec.Type == corev1.ServiceTypeLoadBalancer
		_, refusals := p.balancers().Balance(tenantService, tenantService, before)
		switch {
		case len(refusals) > 0:
			why = reasons(refusals)
		case !has && !p.balancers().Offered:
		case translate.HasNodePorts(tenantService):
			ways = append(ways, p.balanced, p.bare)
		default:
			ways = append(ways, p.bare)
		}
	}
	if translate.HasNodePorts(tenantService) {
		ways = append(ways, p.ported)
	}
	return append(ways, p.inside), why
}

// try brings a Service to the host in a way, with other node ports if those that it
// names are another's.
func (p *serviceDown) try(ctx context.Context, w way, name tenant.Name) (time.Duration, error) {
	again, err := w.asked.Reconcile(ctx, name)
	if w.free == nil || !nodePortRefused(err) {
		return again, err
	}
	if again, err = w.free.Reconcile(ctx, name); err == nil {
		again, err = p.given.Reconcile(ctx, name)
	}
	return again, err
}

// tellReach tells the tenant once when a Service does not reach as far as it asks.
func (p *serviceDown) tellReach(tenantService, before *corev1.Service, got way, why string) {
	was := corev1.ServiceType("")
	if before != nil {
		was = before.Spec.Type
	}
	if got == p.inside && translate.HasNodePorts(tenantService) && was != corev1.ServiceTypeClusterIP {
		p.held.tell(tenantService, corev1.EventTypeWarning, reasonNoNodePorts, "it is reachable inside your cluster only: your plan has no node port, or no more")
	}
	if lacks := got == p.inside || got == p.ported; lacks && why != "" && (was == "" || was == corev1.ServiceTypeLoadBalancer) {
		p.held.tell(tenantService, corev1.EventTypeWarning, reasonNoLoadBalancer, "no load balancer is offered, its external address stays pending: "+why)
	}
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

// balancers are the load balancers that the plan offers.
func (s *Syncer) balancers() translate.LoadBalancers {
	if l := s.loadBalancers.Load(); l != nil {
		return *l
	}
	return translate.LoadBalancers{}
}

// SetLoadBalancers says which of the host's load balancers the tenant's plan offers
// from now on. It may be called at any time. A Service keeps the load balancer that it
// has.
func (s *Syncer) SetLoadBalancers(offer translate.LoadBalancers) {
	s.loadBalancers.Store(&offer)
	s.replanned.note(s.config.Clock.Now())
	for _, o := range s.caches.tenant.services.GetStore().List() {
		if tenantService, ok := o.(*corev1.Service); ok && tenantService.Spec.Type == corev1.ServiceTypeLoadBalancer {
			s.engine.Add(keys(translate.NameOf(tenantService), kindService)...)
		}
	}
}

// replanRetry is how long a Service waits for the host's quota to follow a plan that
// has changed within replanTime.
const (
	replanRetry = 2 * time.Second
	replanTime  = time.Minute
)

// moment is when something happened last; the zero moment: never.
type moment struct{ nanos atomic.Int64 }

func (m *moment) note(now time.Time) { m.nanos.Store(now.UnixNano()) }

func (m *moment) recently(now time.Time) bool {
	return now.UnixNano()-m.nanos.Load() < int64(replanTime)
}

// serviceStatuses tells the tenant the addresses of its load balancers.
func (s *Syncer) serviceStatuses() engine.Pass {
	host := s.hostServices()
	return &engine.Adjust[*corev1.Service, *corev1.Service]{
		Name:   kindServiceStatus,
		Source: host.Cached,
		Target: fromTenant[*corev1.Service](s.caches.tenant.services),
		Pair:   s.sameService,
		Merge:  translate.ServiceStatus,
		Write: func(ctx context.Context, tenantService *corev1.Service) error {
			_, err := s.tenantAPI.CoreV1().Services(tenantService.Namespace).UpdateStatus(ctx, tenantService, metav1.UpdateOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return err
		},
	}
}

// sameService says whether a host Service was made for this very Service.
func (s *Syncer) sameService(hostService, tenantService *corev1.Service) bool {
	owner, err := s.hostServices().Owner(hostService)
	return err == nil && owner == tenantService.UID
}

// givenPorts tells a tenant's Service which node ports it was given.
func (s *Syncer) givenPorts() engine.Pass {
	host := s.hostServices()
	return &engine.Adjust[*corev1.Service, *corev1.Service]{
		Name:   kindService,
		Source: host.Cached,
		Target: fromTenant[*corev1.Service](s.caches.tenant.services),
		Pair:   s.sameService,
		Merge:  translate.NodePorts,
		Write: func(ctx context.Context, tenantService *corev1.Service) error {
			_, err := s.tenantAPI.CoreV1().Services(tenantService.Namespace).Update(ctx, tenantService, metav1.UpdateOptions{})
			if err == nil {
				s.held.tell(tenantService, corev1.EventTypeWarning, reasonNodePortTaken, "a node port that it asked for is not to be had: it got another")
			}
			return err
		},
	}
}
