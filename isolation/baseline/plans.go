package baseline

import (
	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/api/v1alpha1"
)

// plansName names the admission policy of plans and its binding.
const plansName = "sublet-plan-in-use"

// Plans returns the policy that keeps a plan as long as a tenant names it. It is
// asked once for every tenant, and one that objects is enough. Without the kind of
// tenants it fails closed.
func Plans() (*admissionv1.ValidatingAdmissionPolicy, *admissionv1.ValidatingAdmissionPolicyBinding) {
	fail, allow := admissionv1.Fail, admissionv1.AllowAction
	policy := &admissionv1.ValidatingAdmissionPolicy{
		TypeMeta:   typeMeta("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"),
		ObjectMeta: hostMeta(plansName),
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			FailurePolicy: &fail,
			ParamKind:     &admissionv1.ParamKind{APIVersion: v1alpha1.GroupVersion.String(), Kind: "VirtualCluster"},
			MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{
				RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Delete},
					Rule:       admissionv1.Rule{APIGroups: []string{v1alpha1.GroupVersion.Group}, APIVersions: []string{"*"}, Resources: []string{"plans"}},
				},
			}}},
			Validations: []admissionv1.Validation{{
				Expression:        "params.spec.plan != oldObject.metadata.name",
				MessageExpression: "'the plan ' + oldObject.metadata.name + ' is that of the tenant ' + params.metadata.name + ': give the tenant another plan first'",
				Message:           "the plan is in use: give its tenants another plan first",
			}},
		},
	}
	binding := bindingOf(plansName)
	binding.Spec.ParamRef = &admissionv1.ParamRef{Selector: &metav1.LabelSelector{}, ParameterNotFoundAction: &allow}
	return policy, binding
}
