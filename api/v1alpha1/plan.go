package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// DefaultPlan is the plan of a tenant that names none.
const DefaultPlan = "small"

// Plan says what the tenants that name it may have. A change of it is a change
// for all of them; no pod is restarted for it. A plan in use can't be deleted.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:printcolumn:name="Sandboxes",type=string,JSONPath=`.spec.sandboxes`
// +kubebuilder:printcolumn:name="Own cell",type=boolean,JSONPath=`.spec.ownCell`
// +kubebuilder:printcolumn:name="Idle after",type=string,JSONPath=`.spec.idleAfter`
// +kubebuilder:printcolumn:name="Store",type=string,JSONPath=`.spec.storeQuota`
// +kubebuilder:printcolumn:name="Pods",type=string,JSONPath=`.spec.hostResources.pods`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 63",message="a plan's name is a DNS-1123 label of at most 63 characters"
type Plan struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +kubebuilder:default={}
	Spec PlanSpec `json:"spec,omitempty"`
}

// PlanSpec is what a plan's tenants may have.
type PlanSpec struct {
	// Sandboxes are what the tenants' pods may run in. The first is that of a
	// tenant that asks for none. A tenant's sandbox never changes: taking one away
	// is refused to new tenants only, and said of the others.
	//
	// +kubebuilder:default={gvisor,"runc-userns"}
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=2
	// +kubebuilder:validation:items:Enum=gvisor;runc-userns
	// +listType=set
	Sandboxes []string `json:"sandboxes,omitempty"`

	// OwnCell gives each tenant a process for its control plane alone.
	//
	// +kubebuilder:default=false
	OwnCell bool `json:"ownCell,omitempty"`

	// IdleAfter is how long nobody may use a control plane before it is put to
	// sleep; 0s keeps it awake. Its pods do not notice.
	//
	// +kubebuilder:default="30m"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s') && duration(self) <= duration('8760h')",message="idleAfter is between 0s and 8760h"
	IdleAfter *metav1.Duration `json:"idleAfter,omitempty"`

	// StoreQuota bounds what the tenant's API keeps, in bytes of its store.
	//
	// +kubebuilder:default="256Mi"
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('16Mi')) >= 0",message="storeQuota is at least 16Mi"
	StoreQuota *resource.Quantity `json:"storeQuota,omitempty"`

	// HostResources is what a tenant may have on the host, as in a ResourceQuota
	// over its host namespace. What is not named has the default of pods 250,
	// services 500, configmaps, secrets and count/endpointslices.discovery.k8s.io
	// 1000 each; cpu and memory are not limited by default. Where they are, each
	// pod has to say what it needs of them.
	//
	// +kubebuilder:default={pods: "250", services: "500"}
	// +kubebuilder:validation:MaxProperties=24
	// +kubebuilder:validation:XValidation:rule="self.all(k, k in ['pods','services','configmaps','secrets','persistentvolumeclaims','requests.cpu','requests.memory','requests.ephemeral-storage','requests.storage','limits.cpu','limits.memory','limits.ephemeral-storage','count/endpointslices.discovery.k8s.io','count/volumesnapshots.snapshot.storage.k8s.io'] || k.endsWith('.storageclass.storage.k8s.io/requests.storage'))",message="hostResources knows pods, services, configmaps, secrets, persistentvolumeclaims, count/endpointslices.discovery.k8s.io, count/volumesnapshots.snapshot.storage.k8s.io, requests.storage, CLASS.storageclass.storage.k8s.io/requests.storage, and requests. and limits. of cpu, memory and ephemeral-storage"
	HostResources map[corev1.ResourceName]resource.Quantity `json:"hostResources,omitempty"`

	// StorageClasses are the host's storage classes that tenants see; the first is
	// that of claims that name none. Without any there is no persistent storage. How
	// much there may be of it, hostResources says: persistentvolumeclaims 50 and
	// requests.storage 20Gi by default. A class that is taken away keeps the volumes
	// that it has. Volumes go with their claims, whatever the class says.
	//
	// +kubebuilder:default={local}
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.all(c, self.exists_one(o, o == c)) && self.all(c, c.matches('^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$'))",message="storageClasses are names of storage classes, each once"
	// +listType=atomic
	// +optional
	StorageClasses []string `json:"storageClasses,omitzero"` // an empty list is none, no list the default

	// Tolerations are the taints of the host's nodes that pods may tolerate; they are seen
	// on the tenants' nodes. What pods tolerate beyond that stays in the tenant's API; how
	// long they stay on a node that is not ready or unreachable they may always say.
	//
	// +kubebuilder:validation:MaxItems=32
	// +listType=atomic
	// +optional
	Tolerations []TaintPattern `json:"tolerations,omitempty"`

	// CSIDrivers are the CSI drivers whose inline volumes pods may have: a driver of the
	// host is given the tenant's attributes, so it must be made for people who do not
	// trust each other.
	//
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.all(c, self.exists_one(o, o == c)) && self.all(c, c.matches('^[a-zA-Z0-9]([-.a-zA-Z0-9]*[a-zA-Z0-9])?$'))",message="csiDrivers are names of CSI drivers, each once"
	// +listType=atomic
	// +optional
	CSIDrivers []string `json:"csiDrivers,omitempty"`

	// RuntimeClasses are RuntimeClasses that tenants see, and that pods may name. Each
	// stands for the tenant's sandbox: there is no choosing another.
	//
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=name
	// +optional
	RuntimeClasses []RuntimeClassOffer `json:"runtimeClasses,omitempty"`

	// ImageRegistries are where the images of pods may come from: registries, as
	// registry.example.org, or folders in them, as docker.io/library. Without any they may
	// come from everywhere. Pods that are there go on when a registry is taken away.
	//
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=255
	// +kubebuilder:validation:XValidation:rule="self.all(r, self.exists_one(o, o == r)) && self.all(r, r.matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)+(:[0-9]+)?|[a-z0-9]([-a-z0-9]*[a-z0-9])?:[0-9]+|localhost)(/[a-z0-9]([-_.a-z0-9]*[a-z0-9])?)*$'))",message="imageRegistries are names of registries, as in names of images and with their dot, or folders in them, each once; the default registry is docker.io"
	// +listType=atomic
	// +optional
	ImageRegistries []string `json:"imageRegistries,omitempty"`

	// PriorityClasses are the host's PriorityClasses that tenants see, and by which pods that
	// name one are placed on the host among all that run there: a pod of such a class may
	// displace other tenants' pods unless the class says preemptionPolicy: Never. Tenants'
	// own classes rank their own pods only. Pods that are there keep a class that is taken
	// away.
	//
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.all(c, self.exists_one(o, o == c)) && self.all(c, c.matches('^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$'))",message="priorityClasses are names of PriorityClasses, each once"
	// +kubebuilder:validation:XValidation:rule="self.all(c, !c.startsWith('system-'))",message="the PriorityClasses system-... are for what nodes and the host cannot do without: no tenant has them"
	// +listType=atomic
	// +optional
	PriorityClasses []string `json:"priorityClasses,omitempty"`

	// SnapshotClasses are the host's classes of volume snapshots that tenants see; the
	// first is that of snapshots that name none. Without any, or on a host that serves no
	// snapshot.storage.k8s.io/v1, there are no snapshots. How many a tenant may have,
	// hostResources says: count/volumesnapshots.snapshot.storage.k8s.io, 100 by default.
	//
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.all(c, self.exists_one(o, o == c)) && self.all(c, c.matches('^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$'))",message="snapshotClasses are names of classes of volume snapshots, each once"
	// +listType=atomic
	// +optional
	SnapshotClasses []string `json:"snapshotClasses,omitempty"`

	// +kubebuilder:default={}
	Objects ObjectLimits `json:"objects,omitempty"`
	// +kubebuilder:default={}
	Requests RequestLimits `json:"requests,omitempty"`
	// +kubebuilder:default={}
	Credentials CredentialTerms `json:"credentials,omitempty"`
	// +kubebuilder:default={}
	Egress EgressTerms `json:"egress,omitempty"`

	// NodePorts is how many ports of the nodes a tenant's Services may have.
	//
	// +kubebuilder:default=0
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1024
	NodePorts int32 `json:"nodePorts,omitempty"`

	// +kubebuilder:default={}
	LoadBalancers LoadBalancerTerms `json:"loadBalancers,omitempty"`

	// +kubebuilder:default={}
	Ingress IngressTerms `json:"ingress,omitempty"`

	// CustomResources are the kinds beyond Kubernetes' own whose objects cross between
	// host and tenants, one rule for each kind. A rule that is taken away leaves what
	// there is, on both sides, and nothing follows it any longer.
	//
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=group
	// +listMapKey=resource
	// +optional
	CustomResources []CustomResourceRule `json:"customResources,omitempty"`

	// Audit is what is recorded of the requests to a tenant's API: None, Metadata
	// (who asked for what, when), or Request (also what was sent, but for what may
	// hold secrets).
	//
	// +kubebuilder:validation:Enum=None;Metadata;Request
	// +kubebuilder:default=None
	Audit string `json:"audit,omitempty"`
}

// RuntimeClassOffer is a RuntimeClass that tenants see.
type RuntimeClassOffer struct {
	// Name is its name, and that of its handler. Tenants can make RuntimeClasses of other
	// names with this handler.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name"`

	// Sandbox is whose tenants see it: those whose pods run in that sandbox; without it
	// all do.
	//
	// +kubebuilder:validation:Enum=gvisor;runc-userns
	// +optional
	Sandbox string `json:"sandbox,omitempty"`
}

// TaintPattern stands for taints of nodes.
type TaintPattern struct {
	// Key is the taints' key.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=317
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-.a-z0-9]*[a-z0-9])?/)?[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?$`
	Key string `json:"key"`

	// Value is their value; without it any is meant, "" is none.
	//
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^([A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?)?$`
	// +optional
	Value *string `json:"value,omitempty"`

	// Effect is their effect; without it any is meant.
	//
	// +kubebuilder:validation:Enum=NoSchedule;PreferNoSchedule;NoExecute
	// +optional
	Effect corev1.TaintEffect `json:"effect,omitempty"`
}

// ObjectLimits bound what is in a tenant's store. They hold for whatever creates
// objects, the tenant's own controllers included; objects that are there stay.
type ObjectLimits struct {
	// Total is how many objects there may be of all kinds together.
	//
	// +kubebuilder:default=20000
	// +kubebuilder:validation:Minimum=500
	Total int64 `json:"total,omitempty"`

	// PerResource is how many there may be of one resource that Resources does not
	// name.
	//
	// +kubebuilder:default=10000
	// +kubebuilder:validation:Minimum=100
	PerResource int64 `json:"perResource,omitempty"`

	// Resources is how many there may be of single resources, by
	// RESOURCE or RESOURCE.GROUP: "configmaps", "deployments.apps".
	//
	// +kubebuilder:validation:MaxProperties=64
	// +kubebuilder:validation:XValidation:rule="self.all(k, self[k] >= 0)",message="a limit is at least 0"
	// +optional
	Resources map[string]int64 `json:"resources,omitempty"`

	// CustomResourceDefinitions is how many there may be: each costs memory even
	// without objects.
	//
	// +kubebuilder:default=200
	// +kubebuilder:validation:Minimum=0
	CustomResourceDefinitions *int64 `json:"customResourceDefinitions,omitempty"`

	// Size is how large one object may be that a client writes, as JSON.
	//
	// +kubebuilder:default="1Mi"
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('64Ki')) >= 0 && quantity(string(self)).compareTo(quantity('1536Ki')) <= 0",message="size is between 64Ki and 1536Ki"
	Size *resource.Quantity `json:"size,omitempty"`
}

// RequestLimits bound what a tenant's clients ask of its API at a time. Requests
// above them are answered 429 and can be repeated.
type RequestLimits struct {
	// Concurrent is how many short requests there may be at a time.
	//
	// +kubebuilder:default=200
	// +kubebuilder:validation:Minimum=10
	// +kubebuilder:validation:Maximum=10000
	Concurrent int32 `json:"concurrent,omitempty"`

	// Streams is how many watches, logs, exec, attach and port-forward there may
	// be at a time.
	//
	// +kubebuilder:default=2000
	// +kubebuilder:validation:Minimum=10
	// +kubebuilder:validation:Maximum=100000
	Streams int32 `json:"streams,omitempty"`
}

// CredentialTerms bound the lifetime of kubeconfigs.
//
// +kubebuilder:validation:XValidation:rule="!has(self.lifetime) || !has(self.maxLifetime) || duration(self.lifetime) <= duration(self.maxLifetime)",message="lifetime is at most maxLifetime"
type CredentialTerms struct {
	// Lifetime is that of a credential whose issuer names none.
	//
	// +kubebuilder:default="24h"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s')",message="lifetime is at least 1s"
	Lifetime *metav1.Duration `json:"lifetime,omitempty"`

	// MaxLifetime is the longest that can be asked for.
	//
	// +kubebuilder:default="8760h"
	// +kubebuilder:validation:XValidation:rule="duration(self) <= duration('87600h')",message="maxLifetime is at most 87600h"
	MaxLifetime *metav1.Duration `json:"maxLifetime,omitempty"`
}

// EgressTerms say what is reached beyond the tenant itself.
type EgressTerms struct {
	// Internet lets the tenant's pods reach public addresses.
	//
	// +kubebuilder:default=true
	Internet *bool `json:"internet,omitempty"`

	// Webhooks lets the tenant's API server call webhooks at public addresses.
	//
	// +kubebuilder:default=false
	Webhooks bool `json:"webhooks,omitempty"`
}

// LoadBalancerTerms say which of the host's load balancers a tenant's Services may
// have.
type LoadBalancerTerms struct {
	// Count is how many Services of type LoadBalancer get one. Their node ports count
	// as nodePorts; beyond those, load balancers are asked for without node ports.
	//
	// +kubebuilder:default=0
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1024
	Count int32 `json:"count,omitempty"`

	// Classes are what a Service may name as its loadBalancerClass; the first is that
	// of Services that name none. Without any, Services name none and get what the host
	// gives by default.
	//
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=317
	// +kubebuilder:validation:XValidation:rule="self.all(c, self.exists_one(o, o == c)) && self.all(c, c.matches('^([a-z0-9]([-.a-z0-9]*[a-z0-9])?/)?[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?$'))",message="classes are names of load balancer classes (example.com/internal), each once"
	// +listType=atomic
	// +optional
	Classes []string `json:"classes,omitempty"`

	// Annotations are put on every host Service with a load balancer: most load
	// balancers are configured by them. No annotation of a tenant's gets there.
	//
	// +kubebuilder:validation:MaxProperties=16
	// +kubebuilder:validation:XValidation:rule="self.all(k, size(k) <= 317 && k.matches('^([a-z0-9]([-.a-z0-9]*[a-z0-9])?/)?[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?$') && !k.matches('(^|[.])sublet[.]dev/') && size(self[k]) <= 1024 && !self[k].contains('\\n'))",message="annotations have keys as annotations do, none of sublet.dev, and values of one line and at most 1024 characters"
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
}

// IngressTerms say which of the host's controllers serve a tenant's Ingresses, and its
// Gateways and HTTPRoutes (https://gateway-api.sigs.k8s.io), and under which names.
type IngressTerms struct {
	// Classes are the host's ingress classes that tenants see and may name; the first
	// is their default. Without any, no Ingress gets to the host.
	//
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.all(c, self.exists_one(o, o == c)) && self.all(c, c.matches('^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$'))",message="classes are names of ingress classes, each once"
	// +listType=atomic
	// +optional
	Classes []string `json:"classes,omitempty"`

	// GatewayClasses are the host's gateway classes that tenants see, and that their
	// Gateways may name. Without any, no Gateway and no HTTPRoute gets to the host, and
	// the tenants' API has not these kinds. Hostnames and Controllers are about them as
	// about Ingresses; Annotations are not put on them.
	//
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.all(c, self.exists_one(o, o == c)) && self.all(c, c.matches('^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$'))",message="gatewayClasses are names of gateway classes, each once"
	// +listType=atomic
	// +optional
	GatewayClasses []string `json:"gatewayClasses,omitempty"`

	// Hostnames are those that a tenant may have: a name, *.SUFFIX for all names below
	// a suffix, * for all. {tenant} in one stands for the tenant's name. Of those, a
	// tenant gets what no other tenant has.
	//
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.all(h, h == '*' || h.matches('^([*][.])?([a-z0-9{]([-a-z0-9{}]*[a-z0-9}])?)([.][a-z0-9{]([-a-z0-9{}]*[a-z0-9}])?)*$'))",message="hostnames are DNS names in lower case, *.SUFFIX or *"
	// +listType=atomic
	// +optional
	Hostnames []string `json:"hostnames,omitempty"`

	// Controllers are the host namespaces in which the ingress and gateway controllers' pods run:
	// the fence lets these reach the tenant's pods, over TCP, and no others. Without any
	// it lets nobody, which is enough for controllers in the nodes' own network.
	//
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.all(c, self.exists_one(o, o == c)) && self.all(c, c.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && !c.startsWith('sublet-'))",message="controllers are names of host namespaces, each once, and none of a tenant"
	// +listType=atomic
	// +optional
	Controllers []string `json:"controllers,omitempty"`

	// Annotations are put on every host Ingress: most controllers are configured by
	// them. No annotation of a tenant's gets there.
	//
	// +kubebuilder:validation:MaxProperties=16
	// +kubebuilder:validation:XValidation:rule="self.all(k, size(k) <= 317 && k.matches('^([a-z0-9]([-.a-z0-9]*[a-z0-9])?/)?[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?$') && !k.matches('(^|[.])sublet[.]dev/') && size(self[k]) <= 1024 && !self[k].contains('\\n'))",message="annotations have keys as annotations do, none of sublet.dev, and values of one line and at most 1024 characters"
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
}

// PlanList is a list of plans.
//
// +kubebuilder:object:root=true
type PlanList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Plan `json:"items"`
}
