package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/cell"
	"sublet.dev/tenant-apiserver/pki"
)

// authority brings the tenant's CAs to where the spec wants them, and gives the
// tenant what its cell has to know of them and of revoked credentials. The cell
// makes the first CA; until then there is nothing to do.
func (m *Manager) authority(ctx context.Context, vc *v1alpha1.VirtualCluster, t *cell.Tenant) error {
	all, err := m.credentialsOf(ctx, vc)
	if err != nil {
		return err
	}
	for _, c := range all {
		if c.Spec.Revoked || c.DeletionTimestamp != nil {
			t.Revoked = append(t.Revoked, c.Status.Serial)
		}
	}
	slices.Sort(t.Revoked)
	t.CAs = [2]int64{1, 1} // as the cell makes the first
	a, err := rotated(m.config.Keys(tenant.ID(vc.UID)), vc.Spec.Authority)
	if errors.Is(err, pki.ErrMissing) || errors.Is(err, pki.ErrCorrupt) {
		return nil // the cell says what to do when that is a fault
	}
	if err == nil && outlived(a, all, time.Now()) {
		a, err = pki.Finish(m.config.Keys(tenant.ID(vc.UID)))
	}
	if err != nil {
		return fmt.Errorf("rotate the tenant's CA: %w", err)
	}
	t.CAs = [2]int64{a.Oldest(), a.Generation()}
	end := metav1.NewTime(a.Certificate().NotAfter)
	vc.Status.Authority = v1alpha1.AuthorityStatus{Generation: a.Generation(), Oldest: a.Oldest(), NotAfter: &end}
	return nil
}

// renewCA is how long before its end a CA is rotated by itself: the one after it has
// as long to become known.
const renewCA = 365 * 24 * time.Hour

// authorityAgain is how soon it is looked again whether a CA is about to end, or one that
// was replaced is to be given up.
const authorityAgain = 24 * time.Hour

// longestSigned is longer than what a tenant's CA signs is good: a year at most, for
// CSRs, of which nobody but the tenant knows. Kubeconfigs may be good for longer, but
// there are records of them.
const longestSigned = 366 * 24 * time.Hour

// outlived says whether the CA before the one that signs is still trusted although
// nothing that it signed can be good any more.
func outlived(a *pki.Authority, credentials []v1alpha1.Credential, now time.Time) bool {
	if a.Oldest() == a.Generation() || now.Sub(a.Certificate().NotBefore) < longestSigned {
		return false
	}
	return !slices.ContainsFunc(credentials, func(c v1alpha1.Credential) bool {
		s := c.Status
		return s.Generation < a.Generation() && s.NotAfter != nil && now.Before(s.NotAfter.Time) && !c.Spec.Revoked && c.DeletionTimestamp == nil
	})
}

// rotated returns the authority in dir as the spec wants it, or beyond that when its
// CA is about to end. A CA that has ended is given up by itself.
func rotated(dir string, spec v1alpha1.AuthoritySpec) (*pki.Authority, error) {
	a, err := pki.Load(dir)
	if err == nil && spec.Generation > a.Generation() && a.Oldest() < a.Generation() {
		a, err = pki.Finish(dir) // a later rotation says that this one is over
	}
	if err == nil && spec.Generation > a.Generation() {
		a, err = pki.Rotate(dir, spec.Generation)
	}
	if err == nil && spec.Oldest > a.Oldest() {
		a, err = pki.Finish(dir)
	}
	if err == nil && a.Oldest() == a.Generation() && time.Until(a.Certificate().NotAfter) < renewCA {
		a, err = pki.Rotate(dir, a.Generation()+1)
	}
	return a, err
}
