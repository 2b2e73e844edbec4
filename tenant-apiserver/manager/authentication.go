package manager

import (
	"k8s.io/apimachinery/pkg/api/meta"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/tenant-apiserver/cell"
	"sublet.dev/tenant-apiserver/server"
)

const reasonInvalidAuthentication = "InvalidAuthentication"

// authentication gives a tenant the issuers that its VirtualCluster names, and says in
// the status whether they can be used. A tenant goes on with those it had when they
// cannot.
func (m *Manager) authentication(vc *v1alpha1.VirtualCluster, t *cell.Tenant) {
	if vc.Spec.Authentication == nil || len(vc.Spec.Authentication.Raw) == 0 {
		meta.RemoveStatusCondition(&vc.Status.Conditions, v1alpha1.ConditionAuthenticationApplied)
		return
	}
	t.Authentication = vc.Spec.Authentication.Raw
	if err := server.ParseAuthentication(t.Authentication); err != nil {
		m.condition(vc, v1alpha1.ConditionAuthenticationApplied, false, reasonInvalidAuthentication,
			err.Error()+": change it with `sublet authentication set "+vc.Name+" FILE`")
		return
	}
	m.condition(vc, v1alpha1.ConditionAuthenticationApplied, true, reasonApplied, "The tenant's API takes the tokens of these issuers.")
}
