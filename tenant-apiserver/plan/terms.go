package plan

import (
	"maps"
	"reflect"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/baseline"
	"sublet.dev/isolation/policy"
	"sublet.dev/isolation/tenant"
)

// Terms is what a tenant's plan gives its control plane. The zero value gives no
// limits at all; that is what the host's own control plane has.
type Terms struct {
	// Plan is the plan's name, for messages to the tenant's users.
	Plan string `json:"plan,omitempty"`
	// OwnCell asks for a cell that hosts no other tenant.
	OwnCell bool `json:"ownCell,omitempty"`
	// IdleAfter is how long the control plane may be idle before it is put to
	// sleep; 0: it never is.
	IdleAfter time.Duration `json:"idleAfter,omitempty"`
	// StoreQuota bounds the store, in bytes; 0: it is not bounded.
	StoreQuota int64 `json:"storeQuota,omitempty"`
	// Internet lets the tenant's pods reach public addresses (the agents learn of it
	// from the tenant's status), PublicWebhooks its API server.
	Internet       bool `json:"internet,omitempty"`
	PublicWebhooks bool `json:"publicWebhooks,omitempty"`
	// StorageClasses are the host's that the tenant sees, its default first.
	StorageClasses []string `json:"storageClasses,omitempty"`
	// Tolerations are the taints of the host's nodes that its pods may tolerate.
	Tolerations []policy.Taint `json:"tolerations,omitempty"`
	// Room is what its pods may have together of what nodes have.
	Room map[corev1.ResourceName]string `json:"room,omitempty"`
	// CSIDrivers are those whose inline volumes its pods may have.
	CSIDrivers []string `json:"csiDrivers,omitempty"`
	// RuntimeClasses are those that tenants of a sandbox see and may name.
	RuntimeClasses []v1alpha1.RuntimeClassOffer `json:"runtimeClasses,omitempty"`
	// ImageRegistries are where its pods' images may come from; anywhere, without any.
	ImageRegistries []string `json:"imageRegistries,omitempty"`
	// PriorityClasses are the host's that the tenant sees and its pods may name.
	PriorityClasses []string `json:"priorityClasses,omitempty"`
	// CustomResources are the rules for kinds of the host that the tenant has.
	CustomResources []v1alpha1.CustomResourceRule `json:"customResources,omitempty"`
	// LoadBalancers are those of the host that the tenant's Services may have.
	LoadBalancers LoadBalancers `json:"loadBalancers,omitzero"`
	// Ingress are the host's ingress and gateway classes that the tenant sees, its
	// default first; under which names they serve it, the manager decides.
	Ingress Ingress `json:"ingress,omitzero"`
	Limits  Limits  `json:"limits"`
	Audit   Level   `json:"audit,omitempty"`
}

// LoadBalancers say which load balancers a tenant's Services may have. How many, the
// host's quota says.
type LoadBalancers struct {
	// Offered says that there are any.
	Offered bool `json:"offered,omitempty"`
	// Classes are what Services may name, the first for those that name none.
	Classes []string `json:"classes,omitempty"`
	// Annotations are put on their host Services.
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Ingress says how a tenant's Ingresses, and its Gateways with their HTTPRoutes, are
// served. Without classes they are not.
type Ingress struct {
	Classes        []string          `json:"classes,omitempty"`
	Annotations    map[string]string `json:"annotations,omitempty"` // of their host Ingresses
	GatewayClasses []string          `json:"gatewayClasses,omitempty"`
}

// Limits bound the use of a tenant's API. A limit of 0 does not bound.
type Limits struct {
	// Concurrent is how many short requests, Streams how many lasting ones, there
	// may be at a time.
	Concurrent int `json:"concurrent,omitempty"`
	Streams    int `json:"streams,omitempty"`
	// Objects is how many objects there may be in all; PerResource of one
	// resource, unless Resources has it, by RESOURCE or RESOURCE.GROUP.
	Objects     int64            `json:"objects,omitempty"`
	PerResource int64            `json:"perResource,omitempty"`
	Resources   map[string]Count `json:"resources,omitempty"`
	// Size is how many bytes of JSON an object that a client writes may have.
	Size int64 `json:"size,omitempty"`
}

// Count is a limit of objects of one resource; unlike other limits, 0 means none.
type Count int64

// Of returns how many objects there may be of a resource; ok is false when its
// number is not bounded.
func (l Limits) Of(resource string) (n int64, ok bool) {
	if c, named := l.Resources[resource]; named {
		return int64(c), true
	}
	return l.PerResource, l.PerResource > 0
}

// Level is what an audit log records.
type Level string

// The levels.
const (
	AuditNone     Level = "None"
	AuditMetadata Level = "Metadata"
	AuditRequest  Level = "Request"
)

// Offer returns what the plan offers the pods of tenants whose pods run in a sandbox.
func (t Terms) Offer(s tenant.Sandbox) policy.Offer {
	o := policy.Offer{CSIDrivers: t.CSIDrivers, ImageRegistries: t.ImageRegistries, PriorityClasses: t.PriorityClasses}
	for _, c := range t.RuntimeClasses {
		if c.Sandbox == "" || c.Sandbox == string(s) {
			o.RuntimeClasses = append(o.RuntimeClasses, c.Name)
		}
	}
	return o
}

// Equal says whether two tenants have the same terms.
func (t Terms) Equal(o Terms) bool { return reflect.DeepEqual(t, o) }

// crds names the resource that has a limit of its own in plans.
const crds = "customresourcedefinitions.apiextensions.k8s.io"

// For returns what a plan gives each of its tenants.
func For(p *v1alpha1.Plan) Terms {
	s := p.Spec
	return Terms{
		Plan:            p.Name,
		OwnCell:         s.OwnCell,
		IdleAfter:       duration(s.IdleAfter, 30*time.Minute),
		StoreQuota:      amount(s.StoreQuota, "256Mi"),
		Internet:        s.Egress.Internet == nil || *s.Egress.Internet,
		PublicWebhooks:  s.Egress.Webhooks,
		StorageClasses:  classes(s.StorageClasses),
		LoadBalancers:   LoadBalancers{Offered: s.LoadBalancers.Count > 0, Classes: slices.Clone(s.LoadBalancers.Classes), Annotations: maps.Clone(s.LoadBalancers.Annotations)},
		Tolerations:     baseline.Tolerations(s),
		Room:            baseline.Room(s),
		CSIDrivers:      slices.Clone(s.CSIDrivers),
		RuntimeClasses:  slices.Clone(s.RuntimeClasses),
		ImageRegistries: slices.Clone(s.ImageRegistries),
		PriorityClasses: slices.Clone(s.PriorityClasses),
		CustomResources: baseline.CustomResources(s),
		Ingress:         Ingress{Classes: slices.Clone(s.Ingress.Classes), Annotations: maps.Clone(s.Ingress.Annotations), GatewayClasses: slices.Clone(s.Ingress.GatewayClasses)},
		Limits: Limits{
			Concurrent:  int(or(s.Requests.Concurrent, 200)),
			Streams:     int(or(s.Requests.Streams, 2000)),
			Objects:     or(s.Objects.Total, 20000),
			PerResource: or(s.Objects.PerResource, 10000),
			Resources:   counts(s.Objects),
			Size:        amount(s.Objects.Size, "1Mi"),
		},
		Audit: or(Level(s.Audit), AuditNone),
	}
}

// counts are the limits of single resources. CustomResourceDefinitions have their
// own field, which wins over the map.
func counts(o v1alpha1.ObjectLimits) map[string]Count {
	m := make(map[string]Count, len(o.Resources)+1)
	for name, n := range o.Resources {
		m[name] = Count(n)
	}
	m[crds] = 200
	if n := o.CustomResourceDefinitions; n != nil {
		m[crds] = Count(*n)
	}
	return m
}

// Lifetime returns how long a kubeconfig of a tenant of the plan is valid when
// nobody says, and at most.
func Lifetime(p *v1alpha1.Plan) (usual, most time.Duration) {
	c := p.Spec.Credentials
	most = duration(c.MaxLifetime, 365*24*time.Hour)
	return min(duration(c.Lifetime, 24*time.Hour), most), most
}

// Sandbox returns the sandbox of a tenant of the plan that asks for one, or for
// none (""); ok is false when the plan has not that one.
func Sandbox(p *v1alpha1.Plan, asked string) (sandbox string, ok bool) {
	allowed := p.Spec.Sandboxes
	if len(allowed) == 0 {
		allowed = []string{"gvisor", "runc-userns"}
	}
	if asked == "" {
		return allowed[0], true
	}
	return asked, slices.Contains(allowed, asked)
}
