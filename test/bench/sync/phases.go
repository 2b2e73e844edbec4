package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"sublet.dev/isolation/tenant"
	"sublet.dev/syncer/hostcache"
)

// settle is how long a syncer must have had nothing new before it says that it rests
// (syncer/engine).
const settle = 2 * time.Second

// idleMemory measures what a syncer without pods holds, and what watches of all kinds in
// a host namespace hold.
func (w *world) idleMemory(ctx context.Context, r *report) error {
	if _, err := w.atRest(ctx); err != nil {
		return err
	}
	each := float64(len(w.clusters))
	with, goroutines, shared := heap(), runtime.NumGoroutine(), w.shared.Stats()
	w.stopSyncers()
	without, left := heap(), runtime.NumGoroutine()
	r.value("memory/idle-syncer", (with-without)/each/1024, "KiB")
	r.value("goroutines/idle-syncer", float64(goroutines-left)/each, "")
	if !w.alone {
		r.value("watches/idle-syncer", float64(shared.Watches)/each, "")
	}
	stop, err := w.watchHost(ctx)
	defer stop()
	if err != nil {
		return err
	}
	r.value("memory/host-watches", (heap()-without)/each/1024, "KiB")
	r.value("goroutines/host-watches", float64(runtime.NumGoroutine()-left)/each, "")
	stop()
	if err := w.eachCluster(func(_ int, c *cluster) error { return w.runSyncer(ctx, c) }); err != nil {
		return err
	}
	_, err = w.atRest(ctx) // who comes first would wait until all have begun
	return err
}

// watchHost watches all that a syncer can watch in each host namespace, and does nothing
// else.
func (w *world) watchHost(ctx context.Context) (stop func(), err error) {
	var leaves []func()
	stop = func() {
		for _, leave := range leaves {
			leave()
		}
	}
	api, err := kubernetes.NewForConfig(w.config)
	if err != nil {
		return stop, err
	}
	all, kinds := hostcache.New(), hostKinds(api)
	for _, c := range w.clusters {
		space := all.Space(c.tenant.HostNamespace)
		var views []*hostcache.View
		for _, k := range kinds {
			views = append(views, space.View(k))
		}
		leave, err := space.Join(ctx)
		if err != nil {
			return stop, err
		}
		leaves = append(leaves, leave)
		for _, v := range views {
			if _, err := v.Hold(ctx); err != nil {
				return stop, err
			}
		}
	}
	return stop, nil
}

// hostKinds are the kinds of which a syncer can have objects on the host.
func hostKinds(api kubernetes.Interface) []hostcache.Kind {
	core, discovery, networking := api.CoreV1().RESTClient(), api.DiscoveryV1().RESTClient(), api.NetworkingV1().RESTClient()
	kind := func(client rest.Interface, resource string, example apiruntime.Object) hostcache.Kind {
		return hostcache.Kind{Resource: resource, Example: example, Source: hostcache.Source(client, resource, "")}
	}
	return []hostcache.Kind{
		kind(core, "pods", &corev1.Pod{}), kind(core, "services", &corev1.Service{}), kind(core, "configmaps", &corev1.ConfigMap{}),
		kind(core, "secrets", &corev1.Secret{}), kind(core, "persistentvolumeclaims", &corev1.PersistentVolumeClaim{}), kind(core, "events", &corev1.Event{}),
		kind(discovery, "endpointslices", &discoveryv1.EndpointSlice{}),
		kind(networking, "networkpolicies", &networkingv1.NetworkPolicy{}), kind(networking, "ingresses", &networkingv1.Ingress{}),
	}
}

// atRest waits until all syncers have nothing to do, and says how long that took.
func (w *world) atRest(ctx context.Context) (time.Duration, error) {
	begin := time.Now()
	err := w.eachCluster(func(_ int, c *cluster) error {
		return every(ctx, 100*time.Millisecond, func() (bool, error) { _, _, quiet := c.syncer.Rest(); return quiet, nil })
	})
	return max(0, time.Since(begin)-settle), err
}

// one creates a pod, and waits until its tenant sees it running.
func (c *cluster) one(ctx context.Context, seen *bothSides, name string) (toHost, toRunning time.Duration, err error) {
	host := string(c.tenant.ID.HostName(tenant.Name{Namespace: namespace, Name: name}))
	begin := time.Now()
	if _, err := c.api.CoreV1().Pods(namespace).Create(ctx, simple(name), metav1.CreateOptions{}); err != nil {
		return 0, 0, err
	}
	if err := errors.Join(seen.own.wait(ctx, name), seen.onHost.wait(ctx, host)); err != nil {
		return 0, 0, err
	}
	there, _ := seen.onHost.times(host)
	_, runs := seen.own.times(name)
	return there.Sub(begin), runs.Sub(begin), nil
}

// alone creates pods one by one, as one does.
func (c *cluster) alone(ctx context.Context, seen *bothSides, prefix string, count int) (toHost, toRunning []time.Duration, err error) {
	for i := range count {
		a, b, err := c.one(ctx, seen, fmt.Sprintf("%s%d", prefix, i))
		if err != nil {
			return nil, nil, err
		}
		toHost, toRunning = append(toHost, a), append(toRunning, b)
	}
	return toHost, toRunning, nil
}

// idle measures pods one by one, nothing else going on.
func (w *world) idle(ctx context.Context, r *report) error {
	seen, err := w.sightBoth(ctx, w.clusters[0])
	if err != nil {
		return err
	}
	defer seen.stop()
	toHost, toRunning, err := w.clusters[0].alone(ctx, seen, "idle-", w.options.idle)
	if err != nil {
		return err
	}
	r.value("idle/host-pod/p50", ms(quantile(toHost, 0.5)), "ms")
	r.value("idle/host-pod/p99", ms(quantile(toHost, 0.99)), "ms")
	r.value("idle/running/p50", ms(quantile(toRunning, 0.5)), "ms")
	r.value("idle/running/p99", ms(quantile(toRunning, 0.99)), "ms")
	return nil
}

// flood has pods created in several namespaces at once, one client each, and measures
// until they are seen running there.
func flood(ctx context.Context, prefix string, count int, places []place, pod func(name string) *corev1.Pod) (wall time.Duration, times []time.Duration, err error) {
	var mu sync.Mutex
	var first error
	fail := func(e error) {
		mu.Lock()
		defer mu.Unlock()
		if first == nil {
			first = e
		}
	}
	begin := time.Now()
	var group sync.WaitGroup
	for _, p := range places {
		group.Go(func() {
			seen, err := sight(ctx, p.api, p.namespace)
			if err != nil {
				fail(err)
				return
			}
			defer seen.stop()
			names, created := make([]string, count), make([]time.Time, count)
			for i := range count {
				name := fmt.Sprintf("%s%d", prefix, i)
				names[i], created[i] = name, time.Now()
				if _, err := p.api.CoreV1().Pods(p.namespace).Create(ctx, pod(name), metav1.CreateOptions{}); err != nil {
					fail(err)
					return
				}
			}
			if err := seen.wait(ctx, names...); err != nil {
				fail(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for i, name := range names {
				_, runs := seen.times(name)
				times = append(times, runs.Sub(created[i]))
			}
		})
	}
	group.Wait()
	return time.Since(begin), times, first
}

// place is a namespace that pods are created in.
type place struct {
	api       kubernetes.Interface
	namespace string
}

// direct writes the pods to the host itself, and removes them again.
func (w *world) direct(ctx context.Context, r *report) error {
	var places []place
	for i := range w.tenants {
		name := fmt.Sprintf("direct-%d", i)
		if _, err := w.host.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			return err
		}
		if err := until(ctx, func() (bool, error) {
			_, err := w.host.CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{})
			return err == nil, ignoreNotFound(err)
		}); err != nil {
			return err
		}
		places = append(places, place{w.host, name})
	}
	m, err := w.startMeter("direct")
	if err != nil {
		return err
	}
	wall, times, err := flood(ctx, "flood-", w.pods, places, simple)
	if err = errors.Join(err, m.stop(r, w.tenants*w.pods)); err != nil {
		return err
	}
	r.value("direct/wall", wall.Seconds(), "s")
	r.value("direct/p50", ms(quantile(times, 0.5)), "ms")
	r.value("direct/p99", ms(quantile(times, 0.99)), "ms")
	none := int64(0)
	for _, p := range places {
		if err := p.api.CoreV1().Pods(p.namespace).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &none}, metav1.ListOptions{}); err != nil {
			return err
		}
	}
	return w.hostAtRest(ctx)
}

// hostAtRest waits until the host's processes have next to nothing to do, so that what
// they still do of one phase is not measured as a part of the next.
func (w *world) hostAtRest(ctx context.Context) error {
	const window, little = time.Second, 100 * time.Millisecond // a twentieth of two processors
	before, err := usedByName(w.hosting.PIDs)
	if err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(window):
		}
		now, err := usedByName(w.hosting.PIDs)
		if err != nil {
			return err
		}
		if sum(now)-sum(before) <= little {
			return nil
		}
		before = now
	}
}

// synced has all tenants create their pods.
func (w *world) synced(ctx context.Context, r *report) error {
	var places []place
	for _, c := range w.clusters {
		places = append(places, place{c.api, namespace})
	}
	w.requests.take()
	before, err := w.answered(ctx)
	if err != nil {
		return err
	}
	m, err := w.startMeter("synced")
	if err != nil {
		return err
	}
	wall, times, err := flood(ctx, "flood-", w.pods, places, simple)
	if err = errors.Join(err, m.stop(r, w.tenants*w.pods)); err != nil {
		return err
	}
	printRequests("requests/syncers", w.requests.take(), w.tenants*w.pods)
	after, err := w.answered(ctx)
	if err != nil {
		return err
	}
	for k, n := range before {
		after[k] -= n
	}
	printRequests("requests/host", after, w.tenants*w.pods)
	r.value("synced/wall", wall.Seconds(), "s")
	r.value("synced/p50", ms(quantile(times, 0.5)), "ms")
	r.value("synced/p99", ms(quantile(times, 0.99)), "ms")
	r.ratio("synced/wall", wall.Seconds()/r.values["direct/wall"])
	r.ratio("synced/p99", ms(quantile(times, 0.99))/r.values["direct/p99"])
	return nil
}

// restart stops all syncers, and starts them again over what is there. They begin as in
// a process that was started again: there is no garbage of those before them, and the host
// has done what these asked of it.
func (w *world) restart(ctx context.Context, r *report) error {
	w.stopSyncers()
	if err := w.hostAtRest(ctx); err != nil {
		return err
	}
	w.requests.take()
	runtime.GC()
	m, err := w.startMeter("restart")
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := w.eachCluster(func(_ int, c *cluster) error { return w.runSyncer(ctx, c) }); err != nil {
		return errors.Join(err, m.stop(r, w.tenants*w.pods))
	}
	_, err = w.atRest(ctx)
	took := time.Since(begin)
	if err = errors.Join(err, m.stop(r, w.tenants*w.pods)); err != nil {
		return err
	}
	printRequests("requests/syncers", w.requests.take(), w.tenants*w.pods)
	r.value("restart", max(0, took-settle).Seconds(), "s")
	r.value("restart/pods", float64(w.tenants*w.pods), "pods")
	return nil
}

// podMemory measures what syncers hold of each pod: caches of both sides, and what
// goes with them.
func (w *world) podMemory(ctx context.Context, r *report) error {
	with := heap()
	w.stopSyncers()
	without := heap()
	idle := r.values["memory/idle-syncer"] * 1024 * float64(len(w.clusters))
	r.value("memory/synced-pod", (with-without-idle)/float64(w.tenants*w.pods)/1024, "KiB")
	return w.eachCluster(func(_ int, c *cluster) error { return w.runSyncer(ctx, c) })
}

// greedy has one tenant create very many pods, and another one at a time meanwhile. That
// other one is measured alone too, right before and right after: what the greedy tenant does
// to it is not mixed up with what the machine, or the number of pods, became since idle.
func (w *world) greedy(ctx context.Context, r *report) error {
	if w.options.greedy == 0 {
		return nil
	}
	many, single := w.clusters[0], w.clusters[1]
	seen, err := w.sightBoth(ctx, single)
	if err != nil {
		return err
	}
	defer seen.stop()
	before, err := w.neighbourAlone(ctx, r, seen, "before")
	if err != nil {
		return err
	}
	m, err := w.startMeter("greedy")
	if err != nil {
		return err
	}
	wall, beside, err := besideFlood(ctx, many, single, seen, w.options.greedy)
	if err = errors.Join(err, m.stop(r, w.options.greedy+len(beside))); err != nil {
		return err
	}
	after, err := w.neighbourAlone(ctx, r, seen, "after")
	if err != nil {
		return err
	}
	alone := slices.Concat(before, after)
	r.value("greedy/wall", wall.Seconds(), "s")
	r.value("neighbour/pods", float64(len(beside)), "pods")
	r.value("neighbour/running/p50", ms(quantile(beside, 0.5)), "ms")
	r.value("neighbour/running/p99", ms(quantile(beside, 0.99)), "ms")
	r.ratio("neighbour/p50", ms(quantile(beside, 0.5))/ms(quantile(alone, 0.5)))
	r.ratio("neighbour/p99", ms(quantile(beside, 0.99))/ms(quantile(alone, 0.99)))
	r.ratio("neighbour/p50-by-idle", ms(quantile(beside, 0.5))/r.values["idle/running/p50"])
	return nil
}

// neighbourAlone measures pods of the greedy tenant's neighbour, once nothing else goes on.
func (w *world) neighbourAlone(ctx context.Context, r *report, seen *bothSides, when string) ([]time.Duration, error) {
	if _, err := w.atRest(ctx); err != nil {
		return nil, err
	}
	if err := w.hostAtRest(ctx); err != nil {
		return nil, err
	}
	m, err := w.startMeter("alone-" + when)
	if err != nil {
		return nil, err
	}
	_, toRunning, err := w.clusters[1].alone(ctx, seen, when+"-", w.options.idle)
	if err = errors.Join(err, m.stop(r, w.options.idle)); err != nil {
		return nil, err
	}
	r.value("neighbour/alone-"+when+"/p50", ms(quantile(toRunning, 0.5)), "ms")
	r.value("neighbour/alone-"+when+"/p99", ms(quantile(toRunning, 0.99)), "ms")
	return toRunning, nil
}

// besideFlood has one tenant create count pods, and another one after the other until all of
// those run. It waits for what it started.
func besideFlood(ctx context.Context, many, single *cluster, seen *bothSides, count int) (wall time.Duration, times []time.Duration, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	flooded := make(chan error, 1)
	go func() {
		var err error
		wall, _, err = flood(ctx, "greedy-", count, []place{{many.api, namespace}}, simple)
		flooded <- err
	}()
	for i := 0; ; i++ {
		select {
		case err := <-flooded:
			if err == nil && len(times) == 0 {
				err = errors.New("no single pod was measured")
			}
			return wall, times, err
		default:
		}
		_, took, err := single.one(ctx, seen, fmt.Sprintf("single-%d", i))
		if err != nil {
			cancel()
			<-flooded
			return wall, times, err
		}
		times = append(times, took)
	}
}
