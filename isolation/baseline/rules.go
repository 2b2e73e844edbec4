package baseline

import (
	"fmt"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"

	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

// variables are the CEL variables of the admission policy.
func variables() []admissionv1.Variable {
	return []admissionv1.Variable{
		{Name: "isPod", Expression: "request.kind.kind == 'Pod'"},
		{Name: "containers", Expression: "!variables.isPod ? [] : object.spec.containers" +
			" + (has(object.spec.initContainers) ? object.spec.initContainers : [])"},
		{Name: "ephemeral", Expression: "!variables.isPod || !has(object.spec.ephemeralContainers) ? [] : object.spec.ephemeralContainers"},
		{Name: "volumes", Expression: "!variables.isPod || !has(object.spec.volumes) ? [] : object.spec.volumes"},
		{Name: "labels", Expression: "has(object.metadata.labels) ? object.metadata.labels.map(k, k) : []"},
		{Name: "annotations", Expression: "has(object.metadata.annotations) ? object.metadata.annotations.map(k, k) : []"},
		{Name: "had", Expression: "request.operation != 'CREATE' && has(oldObject.metadata.annotations) ? oldObject.metadata.annotations : {}"},
		{Name: "byTenant", Expression: byTenant},
		{Name: "balancerClasses", Expression: fromNamespace(tenant.AnnotationLoadBalancerClasses, "','")},
		{Name: "drivers", Expression: fromNamespace(tenant.AnnotationCSIDrivers, "','")},
		{Name: "registries", Expression: fromNamespace(tenant.AnnotationImageRegistries, "','")},
		{Name: "images", Expression: "!variables.isPod ? [] : " + imagesOf("object")},
		{Name: "hadImages", Expression: "!variables.isPod || request.operation == 'CREATE' ? [] : " + imagesOf("oldObject")},
		{Name: "priorities", Expression: fromNamespace(tenant.AnnotationPriorityClasses, "','")},
		{Name: "tolerable", Expression: fromNamespace(tenant.AnnotationTolerations, "','")},
		{Name: "forced", Expression: fromNamespace(tenant.AnnotationForced, `"\n"`)},
	}
}

// byTenant holds of requests of tenants' identities.
var byTenant = "request.userInfo.username.startsWith('" + tenant.ID("").WriteUser() + "')"

// fromNamespace is the list in an annotation of the tenant's host namespace; empty when
// it is not there.
func fromNamespace(annotation, separator string) string {
	at := "namespaceObject.metadata.annotations['" + annotation + "']"
	return "has(namespaceObject.metadata.annotations) && '" + annotation + "' in namespaceObject.metadata.annotations && " + at + " != '' ? " + at + ".split(" + separator + ") : []"
}

// onlyForced holds of annotations whose keys are in variables.annotations, if each is
// Sublet's, one that the plan puts there, or one that was there before.
func onlyForced() string {
	return "variables.annotations.all(k, k in ['" + strings.Join(tenant.Keys(), "', '") + "'] ||" +
		" (k + '=' + object.metadata.annotations[k]) in variables.forced || (k in variables.had && variables.had[k] == object.metadata.annotations[k]))"
}

// onlyTolerable holds of pods that tolerate what variables.tolerable has, that their node
// is not well, and, as the API server of a host may add it, that it is short of memory.
const onlyTolerable = "!has(object.spec.tolerations) || object.spec.tolerations.all(t, has(t.key) && t.key != '' && (" +
	"(t.key in ['" + corev1.TaintNodeNotReady + "', '" + corev1.TaintNodeUnreachable + "'] && has(t.effect) && t.effect == 'NoExecute') ||" +
	" (t.key == '" + corev1.TaintNodeMemoryPressure + "' && has(t.effect) && t.effect == 'NoSchedule') ||" +
	" (t.key + '=*:*') in variables.tolerable || (has(t.effect) && (t.key + '=*:' + t.effect) in variables.tolerable) ||" +
	" ((!has(t.operator) || t.operator == 'Equal') && ((t.key + '=' + (has(t.value) ? t.value : '') + ':*') in variables.tolerable ||" +
	" (has(t.effect) && (t.key + '=' + (has(t.value) ? t.value : '') + ':' + t.effect) in variables.tolerable)))))"

// imagesOf lists the images of a pod: those of its containers and of its volumes.
func imagesOf(pod string) string {
	var all []string
	for _, sort := range []string{"containers", "initContainers", "ephemeralContainers"} {
		all = append(all, fmt.Sprintf("(has(%[1]s.spec.%[2]s) ? %[1]s.spec.%[2]s.map(c, has(c.image) ? c.image : '') : [])", pod, sort))
	}
	all = append(all, fmt.Sprintf("(has(%[1]s.spec.volumes) ? %[1]s.spec.volumes.filter(v, has(v.image)).map(v, has(v.image.reference) ? v.image.reference : '') : [])", pod))
	return strings.Join(all, " + ")
}

// onlyRegistries holds of pods whose images come from variables.registries, come with
// Sublet, or were there before.
var onlyRegistries = "variables.registries.size() == 0 || variables.images.all(i, i in variables.hadImages || " +
	policy.ImageFrom("i", "'"+tenant.Domain+"'") + " || variables.registries.exists(r, " + policy.ImageFrom("i", "r") + "))"

// onlyPriorities holds of pods with one of variables.priorities, with none, or with the one
// that they had before. What system- begins is no tenant's, whatever a plan says.
const onlyPriorities = "!has(object.spec.priorityClassName) || object.spec.priorityClassName == '' || (!object.spec.priorityClassName.startsWith('system-') &&" +
	" (object.spec.priorityClassName in variables.priorities || (request.operation != 'CREATE' && has(oldObject.spec.priorityClassName) &&" +
	" oldObject.spec.priorityClassName == object.spec.priorityClassName)))"

// notPrivileged holds of the containers in a variable.
func notPrivileged(variable string) string {
	return fmt.Sprintf("variables.%s.all(c, !has(c.securityContext) ||"+
		" ((!has(c.securityContext.privileged) || !c.securityContext.privileged) &&"+
		" (!has(c.securityContext.procMount) || c.securityContext.procMount == 'Default')))", variable)
}

// onlyResources holds of the limits or requests of containers and their pod.
func onlyResources(part string) string {
	var names []string
	for _, r := range policy.Resources() {
		names = append(names, "'"+string(r)+"'")
	}
	all := "all(r, r in [" + strings.Join(names, ", ") + "])"
	return fmt.Sprintf("variables.containers.all(c, !has(c.resources) || !has(c.resources.%[1]s) || c.resources.%[1]s.%[2]s) &&"+
		" (!has(object.spec.resources) || !has(object.spec.resources.%[1]s) || object.spec.resources.%[1]s.%[2]s)", part, all)
}

// onlyKeys holds of the keys in a variable that Sublet writes ([tenant.IsKey]), and
// of those that the host's API server itself adds.
func onlyKeys(variable string, byHost ...string) string {
	known := "['" + strings.Join(append(tenant.Keys(), byHost...), "', '") + "']"
	return fmt.Sprintf("variables.%s.all(k, k in %s || k.matches(r'%s'))", variable, known, tenant.HashedKeys)
}

// validations are the hard rules. Expressions on pods begin with !isPod ||, those
// on Services with isPod ||.
func validations() []admissionv1.Validation {
	pod := func(message, expression string) admissionv1.Validation {
		return admissionv1.Validation{Expression: "!variables.isPod || (" + expression + ")", Message: "tenants' pods " + message}
	}
	service := func(message, expression string) admissionv1.Validation {
		return admissionv1.Validation{Expression: "variables.isPod || (" + expression + ")", Message: "tenants' services " + message}
	}
	spec := "object.spec."
	return []admissionv1.Validation{
		pod("run in their tenant's sandbox", "has(object.spec.runtimeClassName) && '"+tenant.LabelSandbox+"' in namespaceObject.metadata.labels &&"+
			" object.spec.runtimeClassName == 'sublet-' + namespaceObject.metadata.labels['"+tenant.LabelSandbox+"']"),
		pod("have a user namespace of their own unless their sandbox is gVisor", "object.spec.runtimeClassName == '"+tenant.GVisor.RuntimeClass()+"' ||"+
			" (has(object.spec.hostUsers) && !object.spec.hostUsers)"),
		pod("do not share the host's network, processes or IPC", absentOrFalse(spec+"hostNetwork")+" && "+absentOrFalse(spec+"hostPID")+" && "+absentOrFalse(spec+"hostIPC")),
		pod("have no volume of the host", "variables.volumes.all(v, has(v.configMap) || has(v.secret) || has(v.projected) || has(v.downwardAPI) || has(v.emptyDir) || has(v.image) || has(v.persistentVolumeClaim) || (has(v.csi) && v.csi.driver in variables.drivers))"),
		pod("have no credential of the host", "has(object.spec.automountServiceAccountToken) && !object.spec.automountServiceAccountToken &&"+
			" variables.volumes.all(v, !has(v.projected) || !has(v.projected.sources) || v.projected.sources.all(s,"+
			" !has(s.serviceAccountToken) && !has(s.clusterTrustBundle) && !has(s.podCertificate)))"),
		pod("are not privileged", notPrivileged("containers")+" && "+notPrivileged("ephemeral")),
		pod("take no port of the node", "variables.containers.all(c, !has(c.ports) || c.ports.all(p, (!has(p.hostPort) || p.hostPort == 0)))"),
		pod("ask for no device and no huge pages of the node", onlyResources("limits")+" && "+onlyResources("requests")),
		pod("are placed by the scheduler", "request.operation != 'CREATE' || !has(object.spec.nodeName) || object.spec.nodeName == ''"),
		pod("have a PriorityClass of their tenant's plan, or none", onlyPriorities),
		pod("tolerate taints of their tenant's plan alone", onlyTolerable),
		pod("have images from the registries of their tenant's plan alone", onlyRegistries),
		pod("carry only Sublet's own keys", onlyKeys("labels", corev1.LabelTopologyZone, corev1.LabelTopologyRegion)+" && "+onlyKeys("annotations")),
		pod("carry their tenant's mark", "has(object.metadata.labels) && '"+tenant.LabelTenant+"' in object.metadata.labels &&"+
			" object.metadata.labels['"+tenant.LabelTenant+"'] == namespaceObject.metadata.labels['"+tenant.LabelTenant+"']"),
		service("reach beyond the cluster by node ports and load balancers alone", "object.spec.type in ['ClusterIP', 'NodePort', 'LoadBalancer'] &&"+
			" (!has(object.spec.externalIPs) || object.spec.externalIPs.size() == 0) && (!has(object.spec.loadBalancerIP) || object.spec.loadBalancerIP == '')"),
		service("have load balancers of a class of their tenant's plan", "object.spec.type != 'LoadBalancer' || (has(object.spec.loadBalancerClass) ?"+
			" object.spec.loadBalancerClass in variables.balancerClasses : variables.balancerClasses.size() == 0) ||"+
			" (request.operation != 'CREATE' && oldObject.spec.type == 'LoadBalancer')"), // a class never changes
		service("carry only annotations of Sublet and of their tenant's plan", "!variables.byTenant || ("+onlyForced()+")"),
		service("choose no pods by label", "!has(object.spec.selector) || object.spec.selector.size() == 0"),
	}
}

func absentOrFalse(field string) string { return fmt.Sprintf("(!has(%[1]s) || !%[1]s)", field) }
