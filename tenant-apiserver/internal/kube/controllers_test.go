package kube

import (
	"net/netip"
	"strings"
	"testing"

	kcm "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	"k8s.io/kubernetes/cmd/kube-controller-manager/names"

	"sublet.dev/tenant-apiserver/pki"
)

// outward are upstream's controllers that connect to something else than the API: to
// storage, by the plugins of volumes, or that once did to a cloud.
var outward = []string{
	names.PersistentVolumeBinderController,
	names.PersistentVolumeAttachDetachController,
	names.PersistentVolumeExpanderController,
	names.SELinuxWarningController,
	names.NodeIpamController,
}

// No controller of a tenant's connects to storage or a cloud, whatever the tenant
// writes into its StorageClasses, PersistentVolumes and Services.
func TestNoControllerOfATenantReachesOut(t *testing.T) {
	ca, err := pki.LoadOrCreate(t.TempDir(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	descriptors := kcm.NewControllerDescriptors()
	enabled := func(o Options) map[string]bool {
		config, err := controllerConfig(o)
		if err != nil {
			t.Fatal(err)
		}
		running := map[string]bool{}
		for name, d := range descriptors {
			if (kcm.ControllerContext{ComponentConfig: config}).IsControllerEnabled(d) {
				running[name] = true
			}
		}
		return running
	}
	tenants := enabled(Options{PKI: ca})
	for name := range late {
		tenants[name] = true
	}
	host := enabled(Options{PKI: ca, Host: &HostOptions{PodCIDR: netip.MustParsePrefix("10.0.0.0/16")}})
	// The host has some of them, and tenants have controllers: the controls.
	if !host[names.PersistentVolumeBinderController] || !host[names.NodeIpamController] {
		t.Errorf("the host runs %v", host)
	}
	if !tenants[names.DeploymentController] || len(tenants) < len(everywhere) {
		t.Errorf("tenants run %v", tenants)
	}
	for _, name := range outward {
		if descriptors[name] == nil {
			t.Errorf("upstream has no %s any more", name)
		}
		if tenants[name] {
			t.Errorf("a tenant runs the %s", name)
		}
	}
	for name := range tenants {
		if descriptors[name] == nil {
			t.Errorf("upstream has no %s any more", name)
		}
		for _, word := range []string{"cloud", "route", "service-lb", "attach", "binder", "expander", "provision"} {
			if strings.Contains(name, word) {
				t.Errorf("a tenant runs the %s", name)
			}
		}
	}
}
