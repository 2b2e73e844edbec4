package tenant

import (
	"regexp"
	"slices"
)

const (
	// LabelSandbox, on a tenant's host namespace, holds the tenant's sandbox. The
	// host's admission policy holds the namespace's pods to it.
	LabelSandbox = Domain + "/sandbox"
	// LabelAudit, on every object that an audit makes, holds the audit's run, and
	// AnnotationAuditExpires when any audit may remove it (RFC 3339).
	LabelAudit             = Domain + "/audit"
	AnnotationAuditExpires = Domain + "/audit-expires"

	// AnnotationStorageClasses, on a tenant's host namespace, holds the names of the
	// storage classes that its claims may have, with commas between them. The host's
	// admission policy holds the namespace's claims to it.
	AnnotationStorageClasses = Domain + "/storage-classes"

	// AnnotationTolerations, on a tenant's host namespace, holds the taints that its pods
	// may tolerate, KEY=VALUE:EFFECT with * for any, with commas between them. The host's
	// admission policy holds the namespace's pods to it.
	AnnotationTolerations = Domain + "/tolerations"

	// AnnotationSnapshotClasses, on a tenant's host namespace, holds the names of the
	// classes that the tenant's snapshots of volumes may have, with commas between them.
	// The host's admission policy holds the namespace's snapshots to it.
	AnnotationSnapshotClasses = Domain + "/snapshot-classes"

	// AnnotationCSIDrivers, on a tenant's host namespace, holds the drivers whose inline
	// volumes its pods may have, likewise.
	AnnotationCSIDrivers = Domain + "/csi-drivers"

	// AnnotationImageRegistries, on a tenant's host namespace, holds the registries that
	// its pods' images may come from, likewise; any, when it is empty.
	AnnotationImageRegistries = Domain + "/image-registries"

	// AnnotationPriorityClasses, on a tenant's host namespace, holds the host's
	// PriorityClasses that its pods may have, likewise.
	AnnotationPriorityClasses = Domain + "/priority-classes"

	// AnnotationLoadBalancerClasses, on a tenant's host namespace, holds the classes of
	// load balancers that its Services may have, with commas between them, and
	// AnnotationForced the annotations that the tenant's plan puts on its host objects,
	// KEY=VALUE, one a line. The host's admission policy holds the namespace's Services
	// to both.
	AnnotationLoadBalancerClasses = Domain + "/load-balancer-classes"
	AnnotationForced              = Domain + "/forced-annotations"
	// AnnotationIngressClasses, on a tenant's host namespace, holds the ingress classes
	// that its Ingresses may have, with commas between them, and AnnotationHostnames the
	// hostnames that it has, which the manager alone decides. The host's admission
	// policy holds the namespace's Ingresses to both.
	AnnotationIngressClasses = Domain + "/ingress-classes"
	AnnotationHostnames      = Domain + "/hostnames"
	// AnnotationGatewayClasses, on it, holds the gateway classes that its Gateways may
	// have, likewise. Gateways and HTTPRoutes are held to the same hostnames.
	AnnotationGatewayClasses = Domain + "/gateway-classes"
	// LabelHostnames, on a host ConfigMap, says that it asks for hostnames, for an
	// object of the tenant's: see [HostnamesKey]. AnnotationGranted and
	// AnnotationTaken, on it, are the manager's answer: those that the tenant has, and
	// those that another has, with commas between them.
	LabelHostnames    = Domain + "/asks-hostnames"
	AnnotationGranted = Domain + "/hostnames-granted"
	AnnotationTaken   = Domain + "/hostnames-taken"
	// AnnotationAnswered, on it, is what it asked for when it was answered.
	AnnotationAnswered = Domain + "/hostnames-answered"
	// AnnotationForcedKeys, on a host object, holds the keys of the annotations that
	// stand on it because the plan says so, with commas between them.
	AnnotationForcedKeys = Domain + "/forced-keys"

	// AnnotationGeneration, on a host pod or custom resource, is the generation of the
	// tenant's object that it follows.
	AnnotationGeneration = Domain + "/tenant-generation"
	// AnnotationWritten, on the host object of a tenant's custom resource, is a digest
	// of what the syncer wrote last: what stands there beside it is the host's.
	AnnotationWritten = Domain + "/written"
	// AnnotationLabels and AnnotationAnnotations, on a host pod, hold all labels
	// and annotations of the tenant's pod, for its downward API. A single one of
	// them stands under [AnnotationField] and 16 hex digits of a hash.
	AnnotationLabels      = Domain + "/tenant-labels"
	AnnotationAnnotations = Domain + "/tenant-annotations"
	AnnotationField       = Domain + "/field-"
	// AnnotationSubdomain, on a host pod, is the subdomain of the tenant's pod, for the
	// full name in its hosts file.
	AnnotationSubdomain = Domain + "/subdomain"
	// AnnotationMemoryVolumes, on a host pod, names its volumes of memory that a sandbox
	// may hold itself, with commas between them.
	AnnotationMemoryVolumes = Domain + "/memory-volumes"
	// AnnotationPlacement, on a host pod that is placed by labels or taints which the
	// tenant put on its nodes, or by a PriorityClass of its plan, is a hash of what the host
	// was told about that.
	AnnotationPlacement = Domain + "/placement"
	// AnnotationRank, on a host pod without a PriorityClass of the host, holds its [Rank]
	// among its tenant's pods.
	AnnotationRank = Domain + "/rank"
)

// HostnamesKey is the key of a ConfigMap with [LabelHostnames] that holds the hostnames
// that it asks for, one a line.
const HostnamesKey = "hostnames"

// StorageDriver is the driver that a tenant sees behind its storage classes, volumes
// and classes of snapshots: the host's own is nothing of the tenant's.
const StorageDriver = "volumes." + Domain

// GatewayController is the controller that a tenant sees behind its gateway classes, and
// that speaks for the host's in the status of its routes.
const GatewayController = "gateway." + Domain + "/host"

// keys are all that Sublet writes on host objects of tenants, but for hashed ones.
var keys = []string{
	LabelTenant, LabelNamespace, LabelManagedBy, LabelSandbox, LabelAudit,
	AnnotationNamespace, AnnotationName, AnnotationUID,
	AnnotationGeneration, AnnotationWritten, AnnotationLabels, AnnotationAnnotations,
	AnnotationExternalName, AnnotationAuditExpires, AnnotationStorageClasses, AnnotationPlacement, AnnotationSubdomain, AnnotationMemoryVolumes, AnnotationRank,
	AnnotationLoadBalancerClasses, AnnotationForced, AnnotationForcedKeys, AnnotationTolerations, AnnotationSnapshotClasses, AnnotationCSIDrivers, AnnotationImageRegistries, AnnotationPriorityClasses,
	AnnotationIngressClasses, AnnotationGatewayClasses, AnnotationHostnames, LabelHostnames, AnnotationGranted, AnnotationTaken, AnnotationAnswered,
}

// Keys returns the keys of labels and annotations that Sublet itself writes on host
// objects of tenants, but for those that hold a hash: see [HashedKeys]. The caller
// owns the result.
func Keys() []string { return slices.Clone(keys) }

// HashedKeys matches (in RE2) the keys that stand for what a tenant named: its
// labels ([HostLabel]) and single fields ([AnnotationField]).
const HashedKeys = `^(label\.sublet\.dev/[0-9a-f]{20}|sublet\.dev/field-[0-9a-f]{16})$`

var hashedKeys = regexp.MustCompile(HashedKeys)

// IsKey says whether a key of a label or annotation is one that Sublet writes on
// host objects of tenants. That a key stands below our domain is not enough: some
// prefixes mean something to others. Calico, for one, reads pcns.KEY on a pod as
// the label KEY of its namespace.
func IsKey(key string) bool { return slices.Contains(keys, key) || hashedKeys.MatchString(key) }
