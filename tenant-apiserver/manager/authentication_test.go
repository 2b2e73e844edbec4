package manager

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/tenant-apiserver/cell"
)

// The status says whether the issuers can be used; the cell gets them either way, for
// it knows what there was before.
func TestAuthentication(t *testing.T) {
	good := `{"apiVersion":"apiserver.config.k8s.io/v1","kind":"AuthenticationConfiguration","jwt":[{
		"issuer":{"url":"https://i.example.org","audiences":["a"]},"claimMappings":{"username":{"claim":"sub","prefix":"x:"}}}]}`
	vc := &v1alpha1.VirtualCluster{}
	for _, c := range []struct {
		document string
		present  bool
		true     bool
	}{{good, true, true}, {strings.Replace(good, "https", "http", 1), true, false}, {"", false, false}} {
		vc.Spec.Authentication = nil
		if c.document != "" {
			vc.Spec.Authentication = &runtime.RawExtension{Raw: []byte(c.document)}
		}
		var got cell.Tenant
		(&Manager{}).authentication(vc, &got)
		condition := meta.FindStatusCondition(vc.Status.Conditions, v1alpha1.ConditionAuthenticationApplied)
		if string(got.Authentication) != c.document || (condition != nil) != c.present {
			t.Errorf("%s: %s, %+v", c.document, got.Authentication, condition)
		}
		if condition != nil && (condition.Status == "True") != c.true {
			t.Errorf("%s: %+v", c.document, condition)
		}
	}
}
