package cell_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clocktesting "k8s.io/utils/clock/testing"

	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/cell"
	"sublet.dev/tenant-apiserver/pki"
)

// sleeper is a tenant that may sleep, but will not by itself while a test runs.
func sleeper(id, name string) cell.Tenant {
	t := tenantOf(id, name)
	t.Terms.IdleAfter = time.Hour
	return t
}

// visitor is a client that comes through the tenant's socket, as the front door's
// connections do. leave ends its connection.
func visitor(t *testing.T, dir string, tn cell.Tenant) (api kubernetes.Interface, leave func()) {
	t.Helper()
	return visitorWith(t, dir, tn, func(*rest.Config) {})
}

// visitorWith is visitor with a changed configuration.
func visitorWith(t *testing.T, dir string, tn cell.Tenant, change func(*rest.Config)) (api kubernetes.Interface, leave func()) {
	t.Helper()
	authority, err := pki.LoadOrCreate(cell.PKIDir(filepath.Join(dir, string(tn.ID))), "")
	if err != nil {
		t.Fatal(err)
	}
	data, err := authority.Kubeconfig(pki.KubeconfigOptions{Server: "https://" + tn.ServerName, User: "admin", Groups: []string{"system:masters"}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := clientcmd.RESTConfigFromKubeConfig(data)
	if err != nil {
		t.Fatal(err)
	}
	c.QPS = -1
	c.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket(dir, tn.ID))
	}
	change(c)
	h, err := rest.HTTPClientFor(c)
	if err != nil {
		t.Fatal(err)
	}
	k, err := kubernetes.NewForConfigAndClient(c, h)
	if err != nil {
		t.Fatal(err)
	}
	return k, func() { utilnet.CloseIdleConnectionsFor(h.Transport) }
}

// patience is how long a tenant may take to come to rest. It only ends a test that would
// wait for ever.
const patience = 5 * time.Minute

func asleep(s cell.Status) bool { return s.Phase == cell.Asleep }
func ready(s cell.Status) bool  { return s.Phase == cell.Ready }

// lull puts a tenant to sleep.
func lull(t *testing.T, client *cell.Client, id tenant.ID) cell.Status {
	t.Helper()
	if err := client.Sleep(t.Context(), id, patience); err != nil {
		t.Fatal(err)
	}
	return await(t, client, id, asleep)
}

// refused wants a tenant not to be put to sleep, each time for as long as something may be
// written by its controllers before that, until a refusal says why.
func refused(t *testing.T, client *cell.Client, id tenant.ID, within time.Duration, why string) {
	t.Helper()
	ctx := bounded(t)
	for {
		err := client.Sleep(ctx, id, within)
		var refusal cell.Refusal
		if !errors.As(err, &refusal) {
			t.Fatalf("want a refusal that says %q: %v", why, err)
		}
		if strings.Contains(err.Error(), why) {
			return
		}
	}
}

// TestSleep: a tenant that sleeps is woken by whoever connects, once, and they cannot
// tell that it slept.
func TestSleep(t *testing.T) {
	t.Parallel()
	var starts atomic.Int32
	_, client, dir := start(t, func(tn tenant.Tenant, api *rest.Config, _ informers.SharedInformerFactory) (cell.Companion, error) {
		starts.Add(1)
		return quiet(tn, api, nil)
	})
	a := sleeper("uid-a", "a")
	put(t, client, a)
	k, leave := visitor(t, dir, a)
	maps := k.CoreV1().ConfigMaps("default")
	before, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "before"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	refused(t, client, a.ID, time.Second, "connected")
	leave()
	lull(t, client, a.ID)
	if err := client.Sleep(t.Context(), a.ID, patience); err != nil {
		t.Errorf("putting it to sleep again: %v", err)
	}
	var refusal cell.Refusal
	if err := client.Sleep(t.Context(), "uid-none", patience); !errors.Is(err, cell.ErrNotHosted) || errors.As(err, &refusal) {
		t.Errorf("putting nobody to sleep: %v", err)
	}

	const burst = 100
	errs := make(chan error, burst)
	var group sync.WaitGroup
	for range burst {
		k, leave := visitor(t, dir, a)
		group.Go(func() {
			defer leave()
			_, err := k.CoreV1().ConfigMaps("default").Get(t.Context(), "before", metav1.GetOptions{})
			errs <- err
		})
	}
	group.Wait()
	for range burst {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := starts.Load(); n != 2 {
		t.Errorf("it was started %d times, want once more", n)
	}
	watchResumes(t, maps, before)
	if _, err := client.Wake(t.Context(), a.ID, "no reason"); err != nil {
		t.Errorf("waking who is awake: %v", err)
	}
	if n := starts.Load(); n != 2 {
		t.Errorf("it was started %d times", n)
	}
}

// watchResumes wants a watch from a revision before the sleep to see what came after.
func watchResumes(t *testing.T, maps typedcorev1.ConfigMapInterface, before *corev1.ConfigMap) {
	t.Helper()
	if _, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "after"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w, err := maps.Watch(t.Context(), metav1.ListOptions{ResourceVersion: before.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		m, ok := e.Object.(*corev1.ConfigMap)
		if ok && m.Name == "after" {
			return
		}
		if ok && m.Name == "kube-root-ca.crt" { // a controller made it when the API answered already
			continue
		}
		t.Errorf("the watch says %s %v", e.Type, e.Object)
	}
	t.Error("the watch ended")
}

// TestSleepsByItself: a tenant that nobody uses falls asleep, one whose plan says
// never does not, and one that is given such a plan wakes up.
func TestSleepsByItself(t *testing.T) {
	t.Parallel()
	_, client, _ := start(t, quiet)
	a := tenantOf("uid-a", "a")
	a.Terms.IdleAfter = time.Millisecond
	if _, err := client.Put(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	await(t, client, a.ID, asleep)
	a.Terms.IdleAfter = 0
	put(t, client, a)
	var refusal cell.Refusal
	if err := client.Sleep(t.Context(), a.ID, patience); !errors.As(err, &refusal) || !strings.Contains(err.Error(), "plan") {
		t.Errorf("putting to sleep whose plan keeps it awake: %v", err)
	}
}

// TestSleepOutlivesTheCell: a cell that is started again, as after kill -9, leaves
// asleep who slept, and starts who has another store or other values.
func TestSleepOutlivesTheCell(t *testing.T) {
	t.Parallel()
	dir := scratch(t)
	tenants := []cell.Tenant{sleeper("uid-a", "a"), sleeper("uid-b", "b"), sleeper("uid-c", "c")}
	_, first := startIn(t, dir, quiet, func(*cell.Config) {})
	for i := range tenants {
		tenants[i].ServiceCIDR = netip.MustParsePrefix(fmt.Sprintf("10.96.%d.0/22", 4+4*i))
		put(t, first, tenants[i])
	}
	for _, tn := range tenants {
		lull(t, first, tn.ID)
	}
	store := filepath.Join(dir, "uid-b", "store.db") // put back from a backup
	data, err := os.ReadFile(store)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(store+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(store+".new", store); err != nil {
		t.Fatal(err)
	}
	tenants[2].ServerName = "other.test"

	_, second := startIn(t, dir, quiet, func(*cell.Config) {}) // the first one does nothing any more
	for i, want := range []cell.Phase{cell.Asleep, cell.Ready, cell.Ready} {
		s, err := second.Put(t.Context(), tenants[i])
		if err != nil {
			t.Fatal(err)
		}
		if s = await(t, second, tenants[i].ID, func(s cell.Status) bool { return s.Settled() }); s.Phase != want {
			t.Errorf("%s: %+v, want %s", tenants[i].Name, s, want)
		}
	}
	k, leave := visitor(t, dir, tenants[0])
	defer leave()
	if _, err := k.CoreV1().Namespaces().Get(t.Context(), "default", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
}

// restless is a companion that has something to do as long as work is true.
type restless struct {
	idle
	work *atomic.Bool
	due  time.Time
	seen cell.Seen
}

func (r restless) Rest() (cell.Rest, bool) {
	return cell.Rest{Due: r.due, Seen: r.seen}, !r.work.Load()
}

// TestStaysAwake: nobody sleeps who has something to do.
func TestStaysAwake(t *testing.T) {
	t.Parallel()
	var work atomic.Bool
	var reach apis
	seen := cell.Seen{Pods: cell.Mark{Version: "7", Count: 3}}
	_, client, _ := start(t, func(tn tenant.Tenant, api *rest.Config, _ informers.SharedInformerFactory) (cell.Companion, error) {
		_, err := reach.companion(tn, api, nil)
		return restless{idle: idle{http.NotFoundHandler()}, work: &work, seen: seen}, err
	})
	a := sleeper("uid-a", "a")
	put(t, client, a)
	work.Store(true)
	refused(t, client, a.ID, 4*time.Second, "the syncer")
	work.Store(false)
	jobs := reach.client(t, a.ID).BatchV1().Jobs("default")
	template := corev1.PodTemplateSpec{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	if _, err := jobs.Create(t.Context(), &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "j"}, Spec: batchv1.JobSpec{Template: template}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	refused(t, client, a.ID, 4*time.Second, "job j has not ended")
	background := metav1.DeletePropagationBackground
	if err := jobs.Delete(t.Context(), "j", metav1.DeleteOptions{PropagationPolicy: &background}); err != nil {
		t.Fatal(err)
	}
	if s := lull(t, client, a.ID); s.Seen != seen {
		t.Errorf("seen %+v", s.Seen)
	}
}

func cronJob(schedule string) *batchv1.CronJob {
	c := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Spec: batchv1.CronJobSpec{Schedule: schedule}}
	c.Spec.JobTemplate.Spec.Template.Spec = corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "i"}}}
	return c
}

// TestWakesInTime: with a clock of its own, a tenant sleeps until its CronJob is due,
// and not longer.
func TestWakesInTime(t *testing.T) {
	t.Parallel()
	var reach apis
	clock := clocktesting.NewFakeClock(time.Now())
	dir := scratch(t)
	_, client := startIn(t, dir, reach.companion, func(c *cell.Config) { c.Clock = clock })
	a := sleeper("uid-a", "a")
	put(t, client, a)
	if _, err := reach.client(t, a.ID).BatchV1().CronJobs("default").Create(t.Context(), cronJob("0 0 1 1 *"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- client.Sleep(t.Context(), a.ID, patience) }()
	var err error
	for waiting := true; waiting; { // its clock goes on until it sleeps
		select {
		case err = <-done:
			waiting = false
		case <-time.After(10 * time.Millisecond):
			clock.Step(100 * time.Millisecond)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	s := await(t, client, a.ID, asleep)
	now := clock.Now().UTC()
	if want := time.Date(now.Year()+1, 1, 1, 0, 0, 0, 0, time.Local); !s.Due.Equal(want) {
		t.Fatalf("due %s, want %s", s.Due, want)
	}
	clock.SetTime(s.Due.Add(-10 * time.Second))
	if s := await(t, client, a.ID, func(cell.Status) bool { return true }); !asleep(s) {
		t.Errorf("before its time: %+v", s)
	}
	clock.SetTime(s.Due.Add(-time.Second))
	await(t, client, a.ID, ready)
}

// TestCronJobFires: a schedule is kept by a tenant that sleeps, to the second.
func TestCronJobFires(t *testing.T) {
	t.Parallel()
	var reach apis
	_, client, _ := start(t, reach.companion)
	a := sleeper("uid-a", "a")
	put(t, client, a)
	if _, err := reach.client(t, a.ID).BatchV1().CronJobs("default").Create(t.Context(), cronJob(soon), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s := tillDue(t, client, reach.client(t, a.ID), a)
	firedAt(t, client, func() kubernetes.Interface { return reach.client(t, a.ID) }, a, s.Due)
}

// removeJobs removes the jobs in default, and waits until they are gone.
func removeJobs(t *testing.T, k kubernetes.Interface) {
	t.Helper()
	jobs := k.BatchV1().Jobs("default")
	background := metav1.DeletePropagationBackground
	if err := jobs.DeleteCollection(t.Context(), metav1.DeleteOptions{PropagationPolicy: &background}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		left, err := jobs.List(ctx, metav1.ListOptions{})
		return err == nil && len(left.Items) == 0, err
	})
	if err != nil {
		t.Fatal(err)
	}
}
