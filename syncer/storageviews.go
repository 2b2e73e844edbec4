package syncer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/engine"
	"sublet.dev/syncer/translate"
)

const (
	kindVolume       = "PersistentVolume"
	kindStorageClass = "StorageClass"
)

// SetStorageClasses says which of the host's storage classes the tenant's plan
// offers from now on, the first as the default. It may be called at any time.
func (s *Syncer) SetStorageClasses(classes []string) {
	classes = slices.Clone(classes)
	before := s.classes.Swap(&classes)
	var changed []string
	if before != nil {
		changed = *before
	}
	for _, name := range append(changed, classes...) {
		s.engine.Add(keys(tenant.Name{Name: name}, kindStorageClass)...)
	}
	for _, o := range s.caches.tenant.claims.GetStore().List() {
		if tenantClaim, ok := o.(*corev1.PersistentVolumeClaim); ok {
			s.engine.Add(s.ofTenantClaim(tenantClaim)...)
		}
	}
}

// offered lists the classes that the plan offers.
func (s *Syncer) offered() []string {
	if classes := s.classes.Load(); classes != nil {
		return *classes
	}
	return nil
}

// storageClasses keeps the tenant's views of the classes that its plan offers. Other
// classes that the tenant makes are its own, and lead to nothing.
func (s *Syncer) storageClasses() engine.Pass {
	return &engine.Mirror[*storagev1.StorageClass, *storagev1.StorageClass]{
		Name: kindStorageClass,
		Source: func(n tenant.Name) (*storagev1.StorageClass, bool) {
			if !slices.Contains(s.offered(), n.Name) {
				return nil, false
			}
			return engine.FromCache[*storagev1.StorageClass](s.config.Host.classes.GetStore(), n.Name)
		},
		Target: engine.Views[*storagev1.StorageClass]{Cache: s.caches.tenantClasses.GetStore(), API: s.tenantAPI.StorageV1().StorageClasses(), Of: s.viewedClass},
		Want: be(func(hostClass *storagev1.StorageClass) *storagev1.StorageClass {
			return s.t.Class(hostClass, isFirst(s.offered(), hostClass.Name))
		}),
		Merge: translate.MergeClass,
	}
}

// viewedClass says which host class a tenant's is a view of. A class of an offered name is
// one, whatever the tenant made of it; any other is a view by its provisioner, which
// nobody can change.
func (s *Syncer) viewedClass(view *storagev1.StorageClass) (types.UID, error) {
	hostClass, ok := engine.FromCache[*storagev1.StorageClass](s.config.Host.classes.GetStore(), view.Name)
	switch {
	case ok && slices.Contains(s.offered(), view.Name):
		return hostClass.UID, nil
	case view.Provisioner == translate.StorageDriver:
		return "", nil
	default:
		return "", fmt.Errorf("%w: storage class %q was made by the tenant", engine.ErrForeign, view.Name)
	}
}

// isFirst says whether a name is the first of a list: the first class that a plan offers
// is the default. The plan may offer none any more by now.
func isFirst(names []string, name string) bool { return len(names) > 0 && names[0] == name }

// ofClass: the view of a class, or a class that stands in its place.
func (s *Syncer) ofClass(class *storagev1.StorageClass) []engine.Key {
	if !slices.Contains(s.offered(), class.Name) && class.Provisioner != translate.StorageDriver {
		return nil
	}
	return keys(tenant.Name{Name: class.Name}, kindStorageClass)
}

// volumeViews keeps the tenant's views of its volumes, each made from the host claim
// that has the volume: the syncer never reads where a volume lies. Volumes that the
// tenant makes by itself are its own, and lead to nothing.
type volumeViews struct {
	*Syncer
	mirror, status engine.Pass
}

func (s *Syncer) volumes() engine.Pass {
	p := &volumeViews{Syncer: s}
	views := engine.Views[*corev1.PersistentVolume]{Cache: s.caches.tenantVolumes.GetStore(), API: s.tenantAPI.CoreV1().PersistentVolumes(), Of: p.viewed}
	p.mirror = &engine.Mirror[*corev1.PersistentVolumeClaim, *corev1.PersistentVolume]{
		Name: kindVolume, Source: p.hostClaim, Target: views, Want: be(s.t.Volume), Merge: translate.MergeVolume,
	}
	p.status = &engine.Adjust[*corev1.PersistentVolume, *corev1.PersistentVolume]{
		Name: kindVolume, Source: views.Cached, Target: views.Cached,
		Pair: func(_, view *corev1.PersistentVolume) bool { return isVolumeView(view) },
		Merge: func(_, view *corev1.PersistentVolume) (*corev1.PersistentVolume, bool) {
			hostClaim, _ := p.hostClaim(tenant.Name{Name: view.Name})
			return translate.VolumeStatus(hostClaim, view)
		},
		Write: func(ctx context.Context, view *corev1.PersistentVolume) error {
			_, err := s.tenantAPI.CoreV1().PersistentVolumes().UpdateStatus(ctx, view, metav1.UpdateOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return err
		},
	}
	return p
}

func isVolumeView(v *corev1.PersistentVolume) bool {
	return v.Spec.CSI != nil && v.Spec.CSI.Driver == translate.StorageDriver && v.Spec.CSI.VolumeHandle == v.Name
}

// Kind implements engine.Pass.
func (p *volumeViews) Kind() string { return kindVolume }

// Reconcile implements engine.Pass. A view whose volume is gone is released before
// it is deleted: as long as it is bound, its protection keeps it.
func (p *volumeViews) Reconcile(ctx context.Context, name tenant.Name) (time.Duration, error) {
	again, err := p.mirror.Reconcile(ctx, name)
	if errors.Is(err, engine.ErrForeign) {
		return 0, nil // the tenant's own
	}
	if err != nil {
		return again, err
	}
	return p.status.Reconcile(ctx, name)
}

// hostClaim returns the host claim whose volume the tenant knows under a name.
func (p *volumeViews) hostClaim(n tenant.Name) (*corev1.PersistentVolumeClaim, bool) {
	for _, hostClaim := range indexed[*corev1.PersistentVolumeClaim](p.caches.host.claims, byVolume, n.Name) {
		if owner, err := p.hostClaims().Owner(hostClaim); err == nil && translate.VolumeName(owner) == n.Name {
			return hostClaim, true
		}
	}
	return nil, false
}

// viewed says which host claim's volume a tenant's is a view of: the name of a view is its
// claim's UID, so whatever the tenant made of that name is the view.
func (p *volumeViews) viewed(view *corev1.PersistentVolume) (types.UID, error) {
	if hostClaim, ok := p.hostClaim(tenant.Name{Name: view.Name}); ok {
		return hostClaim.UID, nil
	}
	if isVolumeView(view) {
		return "", nil
	}
	return "", fmt.Errorf("%w: volume %q was made by the tenant", engine.ErrForeign, view.Name)
}

// ofTenantVolume: a view, or a volume that stands in the place of one.
func (s *Syncer) ofTenantVolume(tenantVolume *corev1.PersistentVolume) []engine.Key {
	if !isVolumeView(tenantVolume) && len(indexed[*corev1.PersistentVolumeClaim](s.caches.host.claims, byVolume, tenantVolume.Name)) == 0 {
		return nil
	}
	return keys(tenant.Name{Name: tenantVolume.Name}, kindVolume)
}

// volumeOf is the index of host claims by the tenant's name of their volume.
func (c *caches) volumeOf(hostClaim *corev1.PersistentVolumeClaim) []string {
	owner, err := tenant.ReadOwner(hostClaim.Name, hostClaim.Labels, hostClaim.Annotations)
	if err != nil || owner.Tenant != c.self.ID {
		return nil
	}
	return []string{translate.VolumeName(types.UID(owner.UID))}
}

// watchStorage says which keys depend on claims, volumes and classes. The host's
// classes are followed by Run.
func (s *Syncer) watchStorage() error {
	c := s.caches
	return errors.Join(
		s.engine.Watch(c.tenant.claims, nil, keysOf(s.ofTenantClaim)),
		s.engine.Watch(c.tenantVolumes, nil, keysOf(s.ofTenantVolume)),
		s.engine.Watch(c.tenantClasses, nil, keysOf(s.ofClass)),
		s.engine.Watch(c.host.claims, &s.seen.claims, keysOf(s.ofHostClaim)),
	)
}

// indexStorage adds the indexes of claims.
func (c *caches) indexStorage() error {
	return errors.Join(
		c.tenant.pods.AddIndexers(cache.Indexers{byClaim: index(claimNames)}),
		c.tenant.claims.AddIndexers(cache.Indexers{bySnapshot: index(snapshotOf)}),
		c.host.claims.AddIndexers(cache.Indexers{byVolume: index(c.volumeOf)}),
	)
}

// The indexes of claims.
const (
	bySnapshot = "snapshot" // tenant claims by namespace/name of the snapshot they begin as
	byClaim    = "claim"    // tenant pods by namespace/name of a claim they mount
	byVolume   = "volume"   // host claims by the tenant's name of their volume
)
