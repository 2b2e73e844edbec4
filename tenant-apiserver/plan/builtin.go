package plan

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/api/v1alpha1"
)

// BuiltIn returns the plans that a host starts with: [v1alpha1.DefaultPlan] and
// two larger ones. The provider may change them.
func BuiltIn() []*v1alpha1.Plan {
	small := builtIn(v1alpha1.DefaultPlan, size{pods: 250, services: 500, others: 1000, store: "256Mi", objects: 20000, perResource: 10000, crds: 200, concurrent: 200, streams: 2000, idle: 30 * time.Minute})
	medium := builtIn("medium", size{pods: 1000, services: 800, others: 4000, store: "1Gi", objects: 80000, perResource: 40000, crds: 500, concurrent: 400, streams: 5000, idle: 2 * time.Hour})
	large := builtIn("large", size{pods: 5000, services: 1000, others: 20000, store: "2Gi", objects: 300000, perResource: 200000, crds: 1000, concurrent: 800, streams: 20000, ownCell: true})
	return []*v1alpha1.Plan{small, medium, large}
}

// size is in what the built-in plans differ.
type size struct {
	pods, services, others     int64
	store                      string
	objects, perResource, crds int64
	concurrent, streams        int32
	idle                       time.Duration
	ownCell                    bool
}

func builtIn(name string, s size) *v1alpha1.Plan {
	store, object, internet := resource.MustParse(s.store), resource.MustParse("1Mi"), true
	number := func(n int64) resource.Quantity { return *resource.NewQuantity(n, resource.DecimalSI) }
	return &v1alpha1.Plan{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Plan"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.PlanSpec{
			Sandboxes:      []string{"gvisor", "runc-userns"},
			OwnCell:        s.ownCell,
			IdleAfter:      &metav1.Duration{Duration: s.idle},
			StoreQuota:     &store,
			StorageClasses: []string{"local"},
			HostResources: corev1.ResourceList{
				corev1.ResourcePods: number(s.pods), corev1.ResourceServices: number(s.services),
				corev1.ResourceConfigMaps: number(s.others), corev1.ResourceSecrets: number(s.others),
				"count/endpointslices.discovery.k8s.io": number(s.others),
			},
			Objects:     v1alpha1.ObjectLimits{Total: s.objects, PerResource: s.perResource, CustomResourceDefinitions: &s.crds, Size: &object},
			Requests:    v1alpha1.RequestLimits{Concurrent: s.concurrent, Streams: s.streams},
			Credentials: v1alpha1.CredentialTerms{Lifetime: &metav1.Duration{Duration: 24 * time.Hour}, MaxLifetime: &metav1.Duration{Duration: 365 * 24 * time.Hour}},
			Egress:      v1alpha1.EgressTerms{Internet: &internet},
			Audit:       string(AuditNone),
		},
	}
}
