package baseline

import (
	"fmt"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

// variables are the CEL variables of the admission policy of pods. What a rule asks for
// once, and not in a loop, it says itself: each variable costs every request something.
func variables() []admissionv1.Variable {
	return []admissionv1.Variable{
		{Name: "hadImages", Expression: "request.operation == 'CREATE' ? [] : " + imagesOf("oldObject")},
		{Name: "tolerable", Expression: fromNamespace(tenant.AnnotationTolerations, "','")},
	}
}

// byTenant holds of requests of tenants' identities, whose namespaces alone differ.
var byTenant = func() string {
	before, after, _ := strings.Cut(tenant.WriteUser("*"), "*")
	return "request.userInfo.username.startsWith('" + before + "') && request.userInfo.username.endsWith('" + after + "')"
}()

// annotated is an annotation of the tenant's host namespace; empty when it is not there.
func annotated(annotation string) string {
	return "namespaceObject.metadata.?annotations[?'" + annotation + "'].orValue('')"
}

// fromNamespace is the list in an annotation of the tenant's host namespace; empty when
// it is not there.
func fromNamespace(annotation, separator string) string {
	return annotated(annotation) + " != '' ? " + annotated(annotation) + ".split(" + separator + ") : []"
}

// onlyForced holds of annotations whose keys are in variables.annotations, if each is
// Sublet's, one that the plan puts there, or one that was there before.
func onlyForced() string {
	return "variables.annotations.all(k, k in ['" + strings.Join(tenant.Keys(), "', '") + "'] ||" +
		" (k + '=' + object.metadata.annotations[k]) in variables.forced || (k in variables.had && variables.had[k] == object.metadata.annotations[k]))"
}

// onlyTolerable holds of a toleration t of what variables.tolerable has, that its node
// is not well, or, as the API server of a host may add it, that it is short of memory.
const onlyTolerable = "has(t.key) && (" +
	"(t.key in ['" + corev1.TaintNodeNotReady + "', '" + corev1.TaintNodeUnreachable + "'] && has(t.effect) && t.effect == 'NoExecute') ||" +
	" (t.key == '" + corev1.TaintNodeMemoryPressure + "' && has(t.effect) && t.effect == 'NoSchedule') ||" +
	" (t.key != '' && (" +
	"(t.key + '=*:*') in variables.tolerable || (has(t.effect) && (t.key + '=*:' + t.effect) in variables.tolerable) ||" +
	" ((!has(t.operator) || t.operator == 'Equal') && ((t.key + '=' + (has(t.value) ? t.value : '') + ':*') in variables.tolerable ||" +
	" (has(t.effect) && (t.key + '=' + (has(t.value) ? t.value : '') + ':' + t.effect) in variables.tolerable))))))"

// imagesOf lists the images of a pod: those of its containers and of its volumes.
func imagesOf(pod string) string {
	var all []string
	for _, sort := range []string{"containers", "initContainers", "ephemeralContainers"} {
		all = append(all, fmt.Sprintf("(has(%[1]s.spec.%[2]s) ? %[1]s.spec.%[2]s.map(c, has(c.image) ? c.image : '') : [])", pod, sort))
	}
	all = append(all, fmt.Sprintf("(has(%[1]s.spec.volumes) ? %[1]s.spec.volumes.filter(v, has(v.image)).map(v, has(v.image.reference) ? v.image.reference : '') : [])", pod))
	return strings.Join(all, " + ")
}

// onlyRegistries holds of pods whose images come from the registries of the plan, come
// with Sublet, or were there before. Where the plan has none it holds of every pod.
var onlyRegistries = annotated(tenant.AnnotationImageRegistries) + " == '' || (" + imagesOf("object") + ").all(i, i in variables.hadImages || " +
	policy.ImageFrom("i", "'"+tenant.Domain+"'") + " || " + annotated(tenant.AnnotationImageRegistries) + ".split(',').exists(r, " + policy.ImageFrom("i", "r") + "))"

// onlyPriorities holds of pods with a PriorityClass of the plan, with none, or with the one
// that they had before. What system- begins is no tenant's, whatever a plan says.
var onlyPriorities = "!has(object.spec.priorityClassName) || object.spec.priorityClassName == '' || (!object.spec.priorityClassName.startsWith('system-') &&" +
	" (object.spec.priorityClassName in (" + fromNamespace(tenant.AnnotationPriorityClasses, "','") + ") || (request.operation != 'CREATE' && has(oldObject.spec.priorityClassName) &&" +
	" oldObject.spec.priorityClassName == object.spec.priorityClassName)))"

// each holds of objects without a list or map, and of those where a condition holds of
// each of its elements or keys.
func each(list, name, condition string) string {
	return fmt.Sprintf("(has(%[1]s) ? %[1]s.all(%[2]s, %[3]s) : true)", list, name, condition)
}

// containers holds of pods where a condition holds of each of their containers, but for
// ephemeral ones.
func containers(name, condition string) string {
	return "(object.spec.containers.all(" + name + ", " + condition + ") && " + each("object.spec.initContainers", name, condition) + ")"
}

// notPrivileged holds of a container in the variable c.
const notPrivileged = "!has(c.securityContext) ||" +
	" ((!has(c.securityContext.privileged) || !c.securityContext.privileged) &&" +
	" (!has(c.securityContext.procMount) || c.securityContext.procMount == 'Default'))"

// onlyResources holds of a container or pod that has no limits and requests, or those of
// what nodes share out.
func onlyResources(of string) string {
	var names []string
	for _, r := range policy.Resources() {
		names = append(names, "'"+string(r)+"'")
	}
	known := "r in [" + strings.Join(names, ", ") + "]"
	all := ".orValue({}).all(r, " + known + ")"
	return "(!has(" + of + ".resources) || (" + of + ".resources.?limits" + all + " && " + of + ".resources.?requests" + all + "))"
}

// onlyKeys holds of a map whose keys Sublet writes ([tenant.IsKey]), but for those that
// the host's API server itself adds.
func onlyKeys(of string, byHost ...string) string {
	known := "['" + strings.Join(append(tenant.Keys(), byHost...), "', '") + "']"
	return each(of, "k", "k in "+known+" || k.matches(r'"+tenant.HashedKeys+"')")
}

// validations are the hard rules of pods. Every one is asked of every pod: what tells
// most pods soonest that a rule holds stands first in it.
func validations() []admissionv1.Validation {
	pod := func(message, expression string) admissionv1.Validation {
		return admissionv1.Validation{Expression: expression, Message: "tenants' pods " + message}
	}
	spec := "object.spec."
	return []admissionv1.Validation{
		pod("run in their tenant's sandbox", "has(object.spec.runtimeClassName) && '"+tenant.LabelSandbox+"' in namespaceObject.metadata.labels &&"+
			" object.spec.runtimeClassName == 'sublet-' + namespaceObject.metadata.labels['"+tenant.LabelSandbox+"']"),
		pod("have a user namespace of their own unless their sandbox is gVisor", "object.spec.runtimeClassName == '"+tenant.GVisor.RuntimeClass()+"' ||"+
			" (has(object.spec.hostUsers) && !object.spec.hostUsers)"),
		pod("do not share the host's network, processes or IPC", absentOrFalse(spec+"hostNetwork")+" && "+absentOrFalse(spec+"hostPID")+" && "+absentOrFalse(spec+"hostIPC")),
		pod("have no volume of the host", each(spec+"volumes", "v", "has(v.projected) || has(v.configMap) || has(v.secret) || has(v.downwardAPI) || has(v.emptyDir) ||"+
			" has(v.image) || has(v.persistentVolumeClaim) || (has(v.csi) && v.csi.driver in ("+fromNamespace(tenant.AnnotationCSIDrivers, "','")+"))")),
		pod("have no credential of the host", "has(object.spec.automountServiceAccountToken) && !object.spec.automountServiceAccountToken && "+
			each(spec+"volumes", "v", "!has(v.projected) || "+each("v.projected.sources", "s", "!(has(s.serviceAccountToken) || has(s.clusterTrustBundle) || has(s.podCertificate))"))),
		pod("are not privileged", containers("c", notPrivileged)+" && "+each(spec+"ephemeralContainers", "c", notPrivileged)),
		pod("take no port of the node", containers("c", each("c.ports", "p", "!has(p.hostPort) || p.hostPort == 0"))),
		pod("ask for no device and no huge pages of the node", containers("c", onlyResources("c"))+" && "+onlyResources("object.spec")),
		pod("are placed by the scheduler", "!has(object.spec.nodeName) || object.spec.nodeName == '' || request.operation != 'CREATE'"),
		pod("have a PriorityClass of their tenant's plan, or none", onlyPriorities),
		pod("tolerate taints of their tenant's plan alone", each(spec+"tolerations", "t", onlyTolerable)),
		pod("have images from the registries of their tenant's plan alone", onlyRegistries),
		pod("carry only Sublet's own keys", onlyKeys("object.metadata.labels", corev1.LabelTopologyZone, corev1.LabelTopologyRegion)+" && "+onlyKeys("object.metadata.annotations")),
		pod("carry their tenant's mark", "has(object.metadata.labels) && '"+tenant.LabelTenant+"' in object.metadata.labels &&"+
			" object.metadata.labels['"+tenant.LabelTenant+"'] == namespaceObject.metadata.labels['"+tenant.LabelTenant+"']"),
	}
}

func absentOrFalse(field string) string { return fmt.Sprintf("(!has(%[1]s) || !%[1]s)", field) }
