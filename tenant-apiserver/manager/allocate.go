package manager

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"k8s.io/apimachinery/pkg/types"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/cell"
)

// Plan is what tenants get their addresses from. A tenant has one number, from 1;
// everything else follows from it, so one comparison keeps all of them apart.
type Plan struct {
	Services  netip.Prefix // the host's service range (IPv4); slice 0 is the host's own
	SliceBits int          // prefix length of a tenant's slice
	// Second is the host's service range of IPv6, cut like the first; the zero value:
	// it has none.
	Second   netip.Prefix
	NodeIP   netip.Addr // where the front door listens for tenants' pods
	APIPorts int        // tenant n has port APIPorts+n there
}

const (
	// DefaultSliceBits gives a tenant 1022 addresses for its Services, and a
	// host with a /12 1023 tenants.
	DefaultSliceBits = 22
	// DefaultAPIPorts is below the ports of node port Services (30000-32767) and
	// those from which Linux takes the ports of outgoing connections (32768).
	DefaultAPIPorts = 20000
	lastAPIPort     = 29999
)

// DefaultPlan returns the plan for a host with that service range and address.
func DefaultPlan(services netip.Prefix, node netip.Addr) Plan {
	return Plan{Services: services, SliceBits: DefaultSliceBits, NodeIP: node, APIPorts: DefaultAPIPorts}
}

func (p Plan) validate() error {
	switch {
	case !p.Services.IsValid() || !p.Services.Addr().Is4() || p.Services != p.Services.Masked():
		return errors.New("manager: Plan.Services must be an IPv4 range")
	case p.SliceBits <= p.Services.Bits() || p.SliceBits > 27:
		return fmt.Errorf("manager: Plan.SliceBits must be between %d and 27", p.Services.Bits()+1)
	case p.Second != (netip.Prefix{}) && p.checkSecond() != nil:
		return p.checkSecond()
	case !p.NodeIP.IsValid():
		return errors.New("manager: Plan.NodeIP must be set")
	case p.APIPorts <= 0 || p.APIPorts >= lastAPIPort:
		return fmt.Errorf("manager: Plan.APIPorts must be between 1 and %d", lastAPIPort-1)
	}
	return nil
}

// Tenants returns how many tenants fit.
func (p Plan) Tenants() int {
	return min(1<<(p.SliceBits-p.Services.Bits())-1, lastAPIPort-p.APIPorts)
}

// Slice returns the slice of tenant n.
func (p Plan) Slice(n int) netip.Prefix {
	first := p.Services.Addr().As4()
	at := binary.BigEndian.Uint32(first[:]) + uint32(n)<<(32-p.SliceBits)
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], at)
	return netip.PrefixFrom(netip.AddrFrom4(a), p.SliceBits)
}

// number returns which tenant has a slice that fits.
func (p Plan) number(slice netip.Prefix) int {
	first, at := p.Services.Addr().As4(), slice.Addr().As4()
	return int((binary.BigEndian.Uint32(at[:]) - binary.BigEndian.Uint32(first[:])) >> (32 - p.SliceBits))
}

// fits says whether the slice is one that this plan gives.
func (p Plan) fits(slice netip.Prefix) error {
	if slice.Bits() != p.SliceBits || !p.Services.Contains(slice.Addr()) {
		return fmt.Errorf("the slice %s is not of the service range %s with a /%d for each tenant", slice, p.Services, p.SliceBits)
	}
	return nil
}

// errFull means that no number is free.
var errFull = errors.New("no address range is left for another tenant: delete a tenant, or start the host with a larger service range")

// allocate gives a new tenant its place, in its status. What a tenant has already
// stays. The caller writes nothing: allocate updates vc from the API server.
func (m *Manager) allocate(ctx context.Context, vc *v1alpha1.VirtualCluster, ownCell bool) error {
	if vc.Status.ServiceCIDR != "" {
		return m.refresh(ctx, vc)
	}
	m.placing.Lock()
	defer m.placing.Unlock()
	all, err := m.everybody(ctx)
	if err != nil {
		return err
	}
	delete(all, vc.UID) // of an attempt that may have failed
	n, err := m.config.Plan.free(all)
	if err != nil {
		return err
	}
	o, err := m.occupants(ctx, all)
	if err != nil {
		return err
	}
	s := &vc.Status
	s.Namespace = tenant.HostNamespace(vc.Name, tenant.ID(vc.UID))
	s.ServiceCIDR, s.SecondServiceCIDR = m.config.Plan.Slice(n).String(), text(m.config.Plan.SecondSlice(n))
	s.APIPort = int32(m.config.Plan.APIPorts + n)
	s.Cell = o.place(ownCell, m.config.PerCell)
	s.Phase = v1alpha1.PhaseCreating
	m.seats.take(vc) // also when it is not known whether it was written
	return m.refresh(ctx, vc)
}

// refresh writes what follows from the configuration of this run, and with it
// whatever else of the status is new. A tenant from before the host had a second range
// gets its slice of it here, and its control plane is started anew with it.
func (m *Manager) refresh(ctx context.Context, vc *v1alpha1.VirtualCluster) error {
	s := &vc.Status
	address, endpoint := m.config.Plan.NodeIP.String(), "https://"+m.config.Public.String()
	name := vc.Name + "." + m.config.Domain
	second := m.config.Plan.secondOf(s.ServiceCIDR)
	if s.APIAddress == address && s.Endpoint == endpoint && s.ServerName == name && s.SecondServiceCIDR == second {
		return nil
	}
	s.APIAddress, s.Endpoint, s.ServerName, s.SecondServiceCIDR = address, endpoint, name, second
	if err := m.api.Status().Update(ctx, vc); err != nil {
		return fmt.Errorf("write the tenant's addresses: %w", err)
	}
	return nil
}

// free returns the lowest number that no tenant has.
func (p Plan) free(tenants map[types.UID]seat) (int, error) {
	taken := make(map[string]bool, len(tenants))
	for _, s := range tenants {
		taken[s.slice] = true
	}
	for n := 1; n <= p.Tenants(); n++ {
		if !taken[p.Slice(n).String()] {
			return n, nil
		}
	}
	return 0, errFull
}

// placed returns the tenant that a VirtualCluster with addresses stands for.
func (m *Manager) placed(vc *v1alpha1.VirtualCluster) (cell.Tenant, error) {
	slice, err := netip.ParsePrefix(vc.Status.ServiceCIDR)
	if err != nil {
		return cell.Tenant{}, fmt.Errorf("status.serviceCIDR of %s: %w", vc.Name, err)
	}
	if err := m.config.Plan.fits(slice); err != nil {
		return cell.Tenant{}, fmt.Errorf("status.serviceCIDR of %s: %w", vc.Name, err)
	}
	second, err := m.config.Plan.readSecond(vc.Status.SecondServiceCIDR, slice)
	if err != nil {
		return cell.Tenant{}, fmt.Errorf("status.secondServiceCIDR of %s: %w", vc.Name, err)
	}
	t := cell.Tenant{Tenant: tenant.Tenant{
		ID: tenant.ID(vc.UID), Name: vc.Name, HostNamespace: vc.Status.Namespace,
		Sandbox: tenant.Sandbox(vc.Spec.Sandbox), ServiceCIDR: slice, SecondServiceCIDR: second,
	}}
	t.ServerName = vc.Status.ServerName
	t.InCluster = netip.AddrPortFrom(m.config.Plan.NodeIP, uint16(vc.Status.APIPort))
	return t, nil
}
