package syncer

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/translate"
)

// Snapshots of volumes are custom resources: their rules come with the plan's classes
// of snapshots (isolation/baseline). What is here brings claims to what they begin as.

// claimOffer is what the plan offers to claims.
func (s *Syncer) claimOffer() policy.ClaimOffer {
	_, snapshots := s.customs.rule(policy.Snapshots)
	return policy.ClaimOffer{Classes: s.offered(), Snapshots: snapshots}
}

// sourceIsThere says whether the host has the snapshot that a claim's volume begins
// as: one that was made for this very snapshot of the tenant's. What an older one of
// that name holds is not what the tenant means.
func (s *Syncer) sourceIsThere(tenantClaim *corev1.PersistentVolumeClaim) bool {
	snapshot := translate.SnapshotOf(tenantClaim)
	return snapshot == "" || s.customs.paired(policy.Snapshots, tenant.Name{Namespace: tenantClaim.Namespace, Name: snapshot})
}

// paired says whether the host has an object for this very one of the tenant's, of a
// kind that goes to the host.
func (c *customs) paired(definition string, n tenant.Name) bool {
	c.mu.Lock()
	works := c.running[definition]
	c.mu.Unlock()
	if works == nil || !works.ready() {
		return false
	}
	tenantObject, there := works.tenantObject(n)
	host := works.onHost(c)
	hostObject, onHost := host.Cached(n)
	if !there || !onHost {
		return false
	}
	owner, err := host.Owner(hostObject)
	return err == nil && owner == tenantObject.GetUID()
}

// claimsFrom: the claims that begin as a snapshot, if that is what the rule is about.
func (c *custom) claimsFrom(n tenant.Name) []engine.Key {
	if c.kind() != policy.Snapshots {
		return nil
	}
	var all []engine.Key
	for _, tenantClaim := range indexed[*corev1.PersistentVolumeClaim](c.caches.tenant.claims, bySnapshot, n.String()) {
		all = append(all, keys(translate.NameOf(tenantClaim), kindClaim)...)
	}
	return all
}

// moves says whether the host can bring something about for an object of the tenant's.
// A snapshot that is ready stays as it is, and what a controller has judged mostly does.
func (c *custom) moves() bool {
	hostObjects := c.hostObjects.List()
	if c.routes() {
		return slices.ContainsFunc(hostObjects, func(o any) bool {
			hostObject, ok := o.(object)
			return !ok || !c.settled(hostObject)
		})
	}
	if c.kind() != policy.Snapshots {
		return len(hostObjects) > 0
	}
	return slices.ContainsFunc(hostObjects, func(o any) bool {
		hostObject, ok := o.(object)
		if !ok {
			return true
		}
		ready, _, err := unstructured.NestedBool(hostObject.Object, "status", "readyToUse")
		return err != nil || !ready
	})
}

// snapshotOf is the key of an index of claims by what they begin as.
func snapshotOf(tenantClaim *corev1.PersistentVolumeClaim) []string {
	if name := translate.SnapshotOf(tenantClaim); name != "" {
		return inNamespace(tenantClaim, []string{name})
	}
	return nil
}
