package syncer

import (
	"context"
	"errors"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/translate"
)

const kindAnchors = "TrustAnchors"

// The indexes of those who ask for trust anchors, and of what they ask for.
const (
	byAnchors = "anchors" // tenant pods by name of the anchors; host ConfigMaps that hold any, all under ""
	byBundle  = "bundle"  // tenant pods and bundles by key of the bundle
)

const (
	// maxAnchors is the size in bytes of the anchors of one source: what a ConfigMap can
	// hold, with room for what is not data.
	maxAnchors = corev1.MaxSecretSize - 4096
	// maxAllAnchors is the size in bytes of all anchors of a tenant. A short line in a pod
	// can ask for all the bundles of a tenant, over and over with other words.
	maxAllAnchors = 16 * maxAnchors
)

// errAnchors says that trust anchors are too large for the host. Pods wait for them as
// for bundles that are missing.
var errAnchors = errors.New("too many trust anchors")

// anchorsDown mirrors the trust anchors that pods ask for, for as long as a pod does:
// each in one host ConfigMap, whatever the number of its pods and bundles. The
// namespace of their keys is empty.
type anchorsDown struct {
	*Syncer
	mirror engine.Pass
}

func (s *Syncer) trustAnchors() engine.Pass {
	p := &anchorsDown{Syncer: s}
	p.mirror = &engine.Mirror[*translate.Anchors, *corev1.ConfigMap]{
		Name: kindAnchors, Source: p.source, Target: s.hostConfigMaps(""), Want: p.want, Merge: translate.MergeConfigMap,
	}
	return p
}

// Kind implements engine.Pass.
func (p *anchorsDown) Kind() string { return kindAnchors }

// source returns the anchors of that name, if a pod asks for them.
func (p *anchorsDown) source(name tenant.Name) (*translate.Anchors, bool) {
	for _, tenantPod := range indexed[*corev1.Pod](p.caches.tenant.pods, byAnchors, name.Name) {
		for _, a := range translate.AnchorsOf(tenantPod) {
			if translate.NameOf(a) == name {
				return a, true
			}
		}
	}
	return nil, false
}

func (p *anchorsDown) want(_ context.Context, a *translate.Anchors, have *corev1.ConfigMap) (engine.Want[*corev1.ConfigMap], error) {
	want := p.t.TrustAnchors(a, indexed[*certificatesv1.ClusterTrustBundle](p.caches.bundles, byBundle, a.BundleKey()))
	if want == nil {
		return engine.Gone[*corev1.ConfigMap](nil), nil
	}
	if err := p.fits(want, have); err != nil {
		return engine.Leave[*corev1.ConfigMap](), err
	}
	return engine.Be(want), nil
}

func (p *anchorsDown) fits(want, have *corev1.ConfigMap) error {
	total := sizeOf(want)
	if total > maxAnchors {
		return fmt.Errorf("%w: one volume source asks for %d bytes, it may have %d: choose fewer bundles", errAnchors, total, maxAnchors)
	}
	for _, hostMap := range indexed[*corev1.ConfigMap](p.caches.host.configMaps, byAnchors, "") {
		if have == nil || hostMap.UID != have.UID {
			total += sizeOf(hostMap)
		}
	}
	if total > maxAllAnchors {
		return fmt.Errorf("%w: all pods together ask for %d bytes, they may have %d: let them ask for the same, or for less", errAnchors, total, maxAllAnchors)
	}
	return nil
}

func sizeOf(m *corev1.ConfigMap) int {
	size := 0
	for _, v := range m.Data {
		size += len(v)
	}
	return size
}

// Reconcile implements engine.Pass. What a pod waits for in vain, its tenant is told.
func (p *anchorsDown) Reconcile(ctx context.Context, name tenant.Name) (again time.Duration, err error) {
	again, err = p.mirror.Reconcile(ctx, name)
	if errors.Is(err, errAnchors) {
		for _, tenantPod := range indexed[*corev1.Pod](p.caches.tenant.pods, byAnchors, name.Name) {
			p.held.tell(tenantPod, corev1.EventTypeWarning, reasonMount, err.Error())
		}
	}
	return again, err
}

// indexAnchors adds the indexes of trust anchors.
func (c *caches) indexAnchors() error {
	return errors.Join(
		c.tenant.pods.AddIndexers(cache.Indexers{
			byAnchors: index(func(p *corev1.Pod) []string { return ofAnchors(p, func(a *translate.Anchors) string { return a.Name }) }),
			byBundle:  index(func(p *corev1.Pod) []string { return ofAnchors(p, (*translate.Anchors).BundleKey) }),
		}),
		c.bundles.AddIndexers(cache.Indexers{byBundle: index(translate.BundleKeys)}),
		c.host.configMaps.AddIndexers(cache.Indexers{byAnchors: index(c.holdsAnchors)}),
	)
}

// holdsAnchors is an index function: one empty value for what holds trust anchors.
func (c *caches) holdsAnchors(hostMap *corev1.ConfigMap) []string {
	owner, err := tenant.ReadOwner(hostMap.Name, hostMap.Labels, hostMap.Annotations)
	if err != nil || owner.Tenant != c.self.ID || !translate.IsAnchors(owner.Name) {
		return nil
	}
	return []string{""}
}

func ofAnchors(tenantPod *corev1.Pod, value func(*translate.Anchors) string) []string {
	var values []string
	for _, a := range translate.AnchorsOf(tenantPod) {
		values = append(values, value(a))
	}
	return values
}

// ofBundle: the anchors that a bundle may belong to.
func (s *Syncer) ofBundle(bundle *certificatesv1.ClusterTrustBundle) []engine.Key {
	var all []engine.Key
	for _, key := range translate.BundleKeys(bundle) {
		for _, tenantPod := range indexed[*corev1.Pod](s.caches.tenant.pods, byBundle, key) {
			for _, a := range translate.AnchorsOf(tenantPod) {
				if a.BundleKey() == key {
					all = append(all, keys(translate.NameOf(a), kindAnchors)...)
				}
			}
		}
	}
	return all
}
