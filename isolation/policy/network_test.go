package policy_test

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/isolation/policy"
)

// The fence is what the status says, and there is none before the status is
// complete.
func TestFenceFor(t *testing.T) {
	complete := func() *v1alpha1.VirtualCluster {
		return &v1alpha1.VirtualCluster{
			ObjectMeta: metav1.ObjectMeta{Name: "acme", UID: "u"},
			Status:     v1alpha1.VirtualClusterStatus{Namespace: "sublet-acme", ServiceCIDR: "10.96.4.0/22", APIAddress: "192.0.2.1", APIPort: 20001},
		}
	}
	f, err := policy.FenceFor(complete())
	if err != nil || !f.Internet || f.Namespace != "sublet-acme" || f.API[0].String() != "192.0.2.1:20001" {
		t.Errorf("FenceFor = %+v, %v", f, err)
	}
	without := complete()
	without.Status.NoInternet = true
	if f, err := policy.FenceFor(without); err != nil || f.Internet {
		t.Errorf("without the internet: %+v, %v", f, err)
	}
	for name, change := range map[string]func(*v1alpha1.VirtualCluster){
		"service range": func(vc *v1alpha1.VirtualCluster) { vc.Status.ServiceCIDR = "" },
		"API address":   func(vc *v1alpha1.VirtualCluster) { vc.Status.APIAddress = "" },
		"API port":      func(vc *v1alpha1.VirtualCluster) { vc.Status.APIPort = 0 },
		"namespace":     func(vc *v1alpha1.VirtualCluster) { vc.Status.Namespace = "" },
		"ID":            func(vc *v1alpha1.VirtualCluster) { vc.UID = "" },
	} {
		vc := complete()
		change(vc)
		if f, err := policy.FenceFor(vc); err == nil {
			t.Errorf("without a %s: %+v", name, f)
		}
	}
}
