package baseline

import (
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/resource"

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
	return inTenants(admissionName, covers("", "pods", "pods/ephemeralcontainers"), variables(), validations())
}
