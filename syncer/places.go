package syncer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"sublet.dev/isolation/tenant"
)

// errNotKnown is the answer about an address as long as the host has not said which
// pods there are.
var errNotKnown = errors.New("it is not known yet which pods there are: try again")

// At says what the host knows of an address: the UID of the running host pod of
// this tenant that has it for itself alone, if there is one, and whether it is one
// of the provider's: of a node, of this machine, or of pods' ranges without being a
// pod of this tenant. It waits, while ctx lasts, for the host's pods and nodes to be
// known. Nothing that the tenant writes plays a part.
func (s *Syncer) At(ctx context.Context, addr netip.Addr) (hostPod string, ofHost bool, err error) {
	pods, nodes := s.caches.host.pods, s.caches.hostNodes
	if !(pods.HasSynced() && nodes.HasSynced()) && !cache.WaitForCacheSync(ctx.Done(), pods.HasSynced, nodes.HasSynced) {
		return "", false, errNotKnown
	}
	machine, err := onThisMachine(addr)
	if err != nil {
		return "", false, err
	}
	hostPod = s.caches.runningAt(addr)
	return hostPod, machine || s.caches.ofNode(addr, hostPod != ""), nil
}

// runningAt returns the UID of the one running pod of the tenant with an address.
// If two have it, one of them has it no longer: then it is neither's.
func (c *caches) runningAt(addr netip.Addr) string {
	found := ""
	for _, hostPod := range indexed[*corev1.Pod](c.host.pods, byAddress, addr.String()) {
		owner, err := tenant.ReadOwner(hostPod.Name, hostPod.Labels, hostPod.Annotations)
		if err != nil || owner.Tenant != c.self.ID || hostPod.Spec.HostNetwork || hostPod.Status.Phase != corev1.PodRunning {
			continue
		}
		if found != "" {
			return ""
		}
		found = string(hostPod.UID)
	}
	return found
}

// ofNode says whether an address is a node's, or, unless it is a pod of the
// tenant's, in a node's range of pods.
func (c *caches) ofNode(addr netip.Addr, ofTenant bool) bool {
	for _, item := range c.hostNodes.GetStore().List() {
		hostNode, ok := item.(*corev1.Node)
		if !ok {
			continue
		}
		for _, a := range hostNode.Status.Addresses {
			if is, err := netip.ParseAddr(a.Address); err == nil && is.Unmap() == addr {
				return true
			}
		}
		for _, text := range hostNode.Spec.PodCIDRs {
			if pods, err := netip.ParsePrefix(text); err == nil && pods.Contains(addr) && !ofTenant {
				return true
			}
		}
	}
	return false
}

// onThisMachine says whether an interface of this machine has an address.
func onThisMachine(addr netip.Addr) (bool, error) {
	own, err := net.InterfaceAddrs()
	if err != nil {
		return false, fmt.Errorf("list this machine's addresses: %w", err)
	}
	for _, a := range own {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap() == addr {
			return true, nil
		}
	}
	return false, nil
}
