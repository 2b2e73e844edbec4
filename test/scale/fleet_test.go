package scale_test

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/test/machine"
)

// patience bounds every wait, so that a test ends that would wait for ever.
const patience = 20 * time.Minute

// mark is the ConfigMap by which a tenant is told from another.
const mark = "mark"

// fleet is all tenants, as the host API says that they are.
type fleet struct {
	t   *testing.T
	api client.Client

	mu      sync.Mutex
	phases  map[string]v1alpha1.Phase // guarded by mu
	answers map[string]time.Time      // guarded by mu: when a tenant was first seen to answer
}

// watch follows the host's tenants until the test ends.
func watch(t *testing.T) *fleet {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(machine.DataDir(), "admin.kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	f := &fleet{t: t, phases: map[string]v1alpha1.Phase{}, answers: map[string]time.Time{}}
	if f.api, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		t.Fatal(err)
	}
	c, err := cache.New(config, cache.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	informer, err := c.GetInformer(t.Context(), &v1alpha1.VirtualCluster{}, cache.BlockUntilSynced(false))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc: f.seen, UpdateFunc: func(_, now any) { f.seen(now) }, DeleteFunc: f.gone,
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- c.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *fleet) seen(o any) {
	vc := o.(*v1alpha1.VirtualCluster)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.phases[vc.Name] = vc.Status.Phase
	if _, before := f.answers[vc.Name]; !before && (vc.Status.Phase == v1alpha1.PhaseReady || vc.Status.Phase == v1alpha1.PhaseAsleep) {
		f.answers[vc.Name] = time.Now()
	}
}

func (f *fleet) gone(o any) {
	if late, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
		o = late.Obj
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	name := o.(*v1alpha1.VirtualCluster).Name
	delete(f.phases, name)
	delete(f.answers, name)
}

// count returns how many tenants there are, and how many of them sleep.
func (f *fleet) count() (all, asleep int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.phases {
		if p == v1alpha1.PhaseAsleep {
			asleep++
		}
	}
	return len(f.phases), asleep
}

// answered returns when a tenant was first seen to answer; zero: it was not.
func (f *fleet) answered(name string) time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.answers[name]
}

// until waits for a condition.
func (f *fleet) until(ctx context.Context, what string, done func() bool) error {
	err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, patience, true, func(context.Context) (bool, error) { return done(), nil })
	if err != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		odd := map[string]v1alpha1.Phase{}
		for name, p := range f.phases {
			if len(odd) < 20 && p != v1alpha1.PhaseAsleep {
				odd[name] = p
			}
		}
		return fmt.Errorf("%s: %w; of %d tenants, some that do not sleep: %v", what, err, len(f.phases), odd)
	}
	return nil
}

// add makes a tenant and marks it, and returns its kubeconfig and how long it took
// until it was ready.
func (f *fleet) add(ctx context.Context, name, plan string) (kubeconfig []byte, took time.Duration, err error) {
	begun := time.Now()
	vc := &v1alpha1.VirtualCluster{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.VirtualClusterSpec{Plan: plan}}
	if err := f.api.Create(ctx, vc); err != nil {
		return nil, 0, err
	}
	if err := f.until(ctx, name+" is ready", func() bool { return !f.answered(name).IsZero() }); err != nil {
		return nil, 0, err
	}
	took = f.answered(name).Sub(begun)
	out, err := machine.Command("kubeconfig", name).Output()
	if err != nil {
		return nil, 0, fmt.Errorf("sublet kubeconfig %s: %w", name, err)
	}
	err = visit(ctx, out, func(k kubernetes.Interface) error {
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: mark}, Data: map[string]string{"tenant": name}}
		_, err := k.CoreV1().ConfigMaps("default").Create(ctx, m, metav1.CreateOptions{})
		return err
	})
	return out, took, err
}

// read connects to a tenant and wants its mark.
func read(ctx context.Context, name string, kubeconfig []byte) error {
	return visit(ctx, kubeconfig, func(k kubernetes.Interface) error {
		m, err := k.CoreV1().ConfigMaps("default").Get(ctx, mark, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if m.Data["tenant"] != name {
			return fmt.Errorf("%s is answered for by %s", name, m.Data["tenant"])
		}
		return nil
	})
}

// visit connects to a tenant through the front door and hangs up afterwards. It waits
// for as long as that takes.
func visit(ctx context.Context, kubeconfig []byte, what func(kubernetes.Interface) error) error {
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return err
	}
	secure, err := rest.TLSConfigFor(config)
	if err != nil {
		return err
	}
	transport := &http.Transport{TLSClientConfig: secure}
	defer transport.CloseIdleConnections()
	k, err := kubernetes.NewForConfigAndClient(&rest.Config{Host: config.Host}, &http.Client{Transport: transport})
	if err != nil {
		return err
	}
	return what(k)
}
