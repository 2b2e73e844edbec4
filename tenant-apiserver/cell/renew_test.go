package cell_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"sublet.dev/tenant-apiserver/cell"
)

// held connects as the front door does, which tries again while nobody listens.
func held(ctx context.Context, path string) (net.Conn, error) {
	for {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", path)
		if err == nil || !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ENOENT) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// heldVisitor is a visitor that is held while there is no cell.
func heldVisitor(t *testing.T, dir string, tn cell.Tenant) (kubernetes.Interface, func()) {
	t.Helper()
	return visitorWith(t, dir, tn, func(c *rest.Config) {
		c.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) { return held(ctx, socket(dir, tn.ID)) }
	})
}

// soon is the schedule of a CronJob that is due as soon as the tenant can have slept, and
// not at the next full minute: it counts from when the object was made, or was due last.
const soon = "@every 30s"

// shortly is more than the time before it is due in which a tenant wakes and a cell stays.
const shortly = 5 * time.Second

// bounded is the test's context, which only ends a test that would wait for ever.
func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// tillDue puts a tenant with such a CronJob to sleep.
func tillDue(t *testing.T, client *cell.Client, k kubernetes.Interface, tn cell.Tenant) cell.Status {
	t.Helper()
	var s cell.Status
	ctx := bounded(t)
	for s.Phase != cell.Asleep { // not in the last seconds before it is due
		var refusal cell.Refusal
		err := client.Sleep(ctx, tn.ID, 20*time.Second)
		if err != nil && !errors.As(err, &refusal) {
			t.Fatal(err)
		}
		if err != nil && strings.Contains(err.Error(), "has not ended") { // its time came before it slept
			removeJobs(t, k)
		} else if err != nil && !strings.Contains(err.Error(), "due at") && !strings.Contains(err.Error(), "written") {
			t.Fatal(err)
		}
		s = await(t, client, tn.ID, func(cell.Status) bool { return true })
	}
	return s
}

// firedAt wants the tenant to wake for its CronJob, and the Job to be that of then.
func firedAt(t *testing.T, client *cell.Client, k func() kubernetes.Interface, tn cell.Tenant, due time.Time) {
	t.Helper()
	await(t, client, tn.ID, ready)
	jobs, err := k().BatchV1().Jobs("default").Watch(bounded(t), metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		t.Fatal(err)
	}
	defer jobs.Stop()
	e := <-jobs.ResultChan()
	j, ok := e.Object.(*batchv1.Job)
	if !ok || j.Annotations[batchv1.CronJobScheduledTimestampAnnotation] != due.UTC().Format(time.RFC3339) {
		t.Errorf("due at %s, and then %v", due, e.Object)
	}
}

// TestRenewal: a cell leaves its tenants to another when all of them sleep and nothing
// is due soon. They sleep on there, whoever connects meanwhile is served there, and what
// is due is done.
func TestRenewal(t *testing.T) {
	t.Parallel()
	var reach apis
	dir := scratch(t)
	old, client := startIn(t, dir, reach.companion, func(*cell.Config) {})
	a, b := sleeper("uid-a", "a"), sleeper("uid-b", "b")
	put(t, client, a)
	put(t, client, b)
	if _, err := reach.client(t, a.ID).CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kept"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := reach.client(t, b.ID).BatchV1().CronJobs("default").Create(t.Context(), cronJob(soon), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	was := tillDue(t, client, reach.client(t, b.ID), b)
	if old.Leave(0) {
		t.Fatal("it left a tenant that runs")
	}
	lull(t, client, a.ID)
	if old.Leave(time.Hour) {
		t.Fatal("it left though something has just changed")
	}
	for !old.Leave(0) { // b's time came while a fell asleep
		if s, _ := old.Get(b.ID); asleep(s) && s.Due.Equal(was.Due) && time.Until(s.Due) > shortly {
			t.Fatal("it did not leave tenants that sleep")
		}
		was = tillDue(t, client, reach.client(t, b.ID), b)
	}
	if s, err := client.Snapshot(t.Context(), 0); err != nil || !s.Ending || len(s.Tenants) != 2 {
		t.Errorf("it says %+v, %v", s, err)
	}
	if _, err := client.Put(t.Context(), a); err == nil {
		t.Error("it took a tenant though it ends")
	}
	if conn, err := net.Dial("unix", socket(dir, a.ID)); !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("connecting to one that has left: %v, %v", conn, err)
	}
	answer := make(chan error, 1)
	k, leave := heldVisitor(t, dir, a)
	defer leave()
	ctx := bounded(t)
	go func() {
		_, err := k.CoreV1().ConfigMaps("default").Get(ctx, "kept", metav1.GetOptions{})
		answer <- err
	}()

	next, client := startIn(t, dir, reach.companion, func(*cell.Config) {})
	if err := next.Resume([]cell.Tenant{a, b}); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; err != nil {
		t.Errorf("who connected meanwhile: %v", err)
	}
	if s := await(t, client, b.ID, func(s cell.Status) bool { return s.Phase != cell.Starting }); asleep(s) && s != was {
		t.Errorf("it sleeps on as %+v, and slept as %+v", s, was)
	}
	firedAt(t, client, func() kubernetes.Interface { return reach.client(t, b.ID) }, b, was.Due)
}
