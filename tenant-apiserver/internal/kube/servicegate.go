package kube

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/kubernetes/pkg/apis/core"
	servicestorage "k8s.io/kubernetes/pkg/registry/core/service/storage"
)

const (
	// gateRetry is the pause between two looks at the range of addresses.
	gateRetry = 5 * time.Millisecond
	// gateTime is how long Services wait for it. It is there long before, unless
	// somebody took it away; then upstream's error says so.
	gateTime = 10 * time.Second
)

// serviceGate has Services wait until upstream's allocator of addresses has learnt of
// the range, which it does by itself and some time after a start. It refuses all
// Services before, saying that the range is full, or that an address is not in it.
type serviceGate struct {
	beginCreate genericregistry.BeginCreateFunc // what the registry had
	beginUpdate genericregistry.BeginUpdateFunc
	mu          sync.Mutex
	open        bool // guarded by mu
}

// gateServices puts a gate before the registry of Services.
func gateServices(groups []*genericapiserver.APIGroupInfo) error {
	for _, group := range groups {
		if group.PrioritizedVersions[0].Group != corev1.GroupName {
			continue
		}
		services, ok := group.VersionedResourcesStorageMap["v1"]["services"].(*servicestorage.REST)
		if !ok || services.BeginCreate == nil || services.BeginUpdate == nil {
			return fmt.Errorf("the registry of Services is not what it was in Kubernetes %s: review internal/kube", Version)
		}
		g := &serviceGate{beginCreate: services.BeginCreate, beginUpdate: services.BeginUpdate}
		services.BeginCreate, services.BeginUpdate = g.create, g.update
	}
	return nil
}

func (g *serviceGate) create(ctx context.Context, obj runtime.Object, options *metav1.CreateOptions) (genericregistry.FinishFunc, error) {
	if err := g.await(ctx); err != nil {
		return nil, err
	}
	return g.beginCreate(ctx, obj, options)
}

func (g *serviceGate) update(ctx context.Context, obj, old runtime.Object, options *metav1.UpdateOptions) (genericregistry.FinishFunc, error) {
	if err := g.await(ctx); err != nil {
		return nil, err
	}
	return g.beginUpdate(ctx, obj, old, options)
}

// await returns once the range is there, or after gateTime. Its error is ctx's.
func (g *serviceGate) await(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open {
		return nil
	}
	err := wait.PollUntilContextTimeout(ctx, gateRetry, gateTime, true, g.ready)
	if ctx.Err() != nil {
		return err
	}
	g.open = true
	return nil
}

// ready says whether a Service would be given an address of each family that there is;
// none is taken.
func (g *serviceGate) ready(ctx context.Context) (bool, error) {
	both := core.IPFamilyPolicyPreferDualStack
	probe := &core.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "probe", Namespace: metav1.NamespaceDefault},
		Spec:       core.ServiceSpec{Type: core.ServiceTypeClusterIP, IPFamilyPolicy: &both, Ports: []core.ServicePort{{Port: 1, Protocol: core.ProtocolTCP}}},
	}
	finish, err := g.beginCreate(ctx, probe, &metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		return false, nil // not yet; the reason is upstream's to tell
	}
	finish(ctx, false)
	return true, nil
}
