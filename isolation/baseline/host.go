package baseline

import (
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/isolation/tenant"
)

// Host returns the objects that every host has once: the RuntimeClasses of the
// sandboxes and the admission policies of tenants' namespaces and of plans. The
// caller owns them.
func Host() []Object {
	var objects []Object
	for _, s := range tenant.Sandboxes() {
		objects = append(objects, RuntimeClass(s))
	}
	services, servicesBinding := Services()
	policy, binding := Admission()
	claims, claimBinding := Claims()
	snapshots, snapshotBinding := Snapshots()
	plans, planBinding := Plans()
	ingresses, ingressBinding := Ingresses()
	gateways, gatewayBinding := Gateways()
	return append(objects, services, servicesBinding, policy, binding, claims, claimBinding, ingresses, ingressBinding, gateways, gatewayBinding, snapshots, snapshotBinding, plans, planBinding)
}

// sandboxMemory is what a sandbox needs beside its containers; it is added to the
// pod's limit, for the sandbox runs within it. A gVisor sandbox takes about
// 40 MiB with its gofers (measured), its page cache more.
var sandboxMemory = map[tenant.Sandbox]string{tenant.GVisor: "64Mi", tenant.RuncUserNS: "8Mi"}

// RuntimeClass returns the RuntimeClass of a sandbox. Only nodes whose agent has
// seen the handler work get its pods; without such a node they stay Pending.
func RuntimeClass(s tenant.Sandbox) *nodev1.RuntimeClass {
	return &nodev1.RuntimeClass{
		TypeMeta:   typeMeta("node.k8s.io/v1", "RuntimeClass"),
		ObjectMeta: hostMeta(s.RuntimeClass()),
		Handler:    s.Handler(),
		Overhead:   &nodev1.Overhead{PodFixed: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(sandboxMemory[s])}},
		Scheduling: &nodev1.Scheduling{NodeSelector: map[string]string{s.NodeLabel(): "true"}},
	}
}

// admissionName names the admission policy and its binding.
const admissionName = "sublet-tenant"

// Admission returns the policy that restates the hard rules of pods in the host's API
// server, for every writer, in every namespace that is a tenant's. It fails closed.
func Admission() (*admissionv1.ValidatingAdmissionPolicy, *admissionv1.ValidatingAdmissionPolicyBinding) {
	fail := admissionv1.Fail
	policy := &admissionv1.ValidatingAdmissionPolicy{
		TypeMeta:   typeMeta("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"),
		ObjectMeta: hostMeta(admissionName),
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			FailurePolicy: &fail,
			MatchConstraints: &admissionv1.MatchResources{
				NamespaceSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
					{Key: tenant.LabelTenant, Operator: metav1.LabelSelectorOpExists}}},
				ResourceRules: []admissionv1.NamedRuleWithOperations{
					covers("", "pods", "pods/ephemeralcontainers"),
				},
			},
			Variables:   variables(),
			Validations: validations(),
		},
	}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{
		TypeMeta:   typeMeta("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding"),
		ObjectMeta: hostMeta(admissionName),
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName:        admissionName,
			ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		},
	}
	return policy, binding
}

func covers(group string, resources ...string) admissionv1.NamedRuleWithOperations {
	return admissionv1.NamedRuleWithOperations{RuleWithOperations: admissionv1.RuleWithOperations{
		Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
		Rule:       admissionv1.Rule{APIGroups: []string{group}, APIVersions: []string{"v1"}, Resources: resources},
	}}
}
