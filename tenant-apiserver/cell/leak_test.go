package cell_test

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/tenant-apiserver/cell"
)

// usage is what a process must not lose.
type usage struct{ goroutines, files int }

func inUse(t *testing.T) usage {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return usage{runtime.NumGoroutine(), len(files)}
}

// settle waits until what is in use is no more than before; the little that upstream
// starts once a process, or ends late, is allowed for.
func settle(t *testing.T, before usage) usage {
	t.Helper()
	const goroutines, files = 12, 2
	deadline := time.After(5 * time.Minute) // only ends a test that would wait for ever
	for {
		now := inUse(t)
		if now.goroutines <= before.goroutines+goroutines && now.files <= before.files+files {
			return now
		}
		select {
		case <-deadline:
			buf := make([]byte, 1<<20)
			t.Fatalf("before %+v, now %+v\n%s", before, now, buf[:runtime.Stack(buf, true)])
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// TestStartsLeakNothing starts and stops a tenant twenty times, with a client each
// time. The positive control is the tenant itself: while it runs, it shows.
func TestStartsLeakNothing(t *testing.T) {
	_, client, dir := start(t, quiet)
	a := sleeper("uid-a", "a")
	turn := func() (during usage) {
		put(t, client, a)
		k, leave := visitor(t, dir, a)
		if _, err := k.CoreV1().Namespaces().Get(t.Context(), "default", metav1.GetOptions{}); err != nil {
			t.Fatal(err)
		}
		during = inUse(t)
		leave()
		if err := client.Delete(t.Context(), a.ID); err != nil {
			t.Fatal(err)
		}
		return during
	}
	turn() // what happens once a process
	before := settle(t, usage{200, 64})
	for i := range 20 {
		during := turn()
		if during.goroutines < before.goroutines+100 || during.files <= before.files {
			t.Fatalf("a running tenant does not show: before %+v, during %+v", before, during)
		}
		if now := settle(t, before); i == 19 {
			t.Logf("before %+v, during %+v, after %+v", before, during, now)
		}
	}
}

// issuers names an issuer that nobody connects to.
const issuers = `{"apiVersion":"apiserver.config.k8s.io/v1","kind":"AuthenticationConfiguration","jwt":[{
	"issuer":{"url":"https://127.0.0.1:1","audiences":["a"]},"claimMappings":{"username":{"claim":"sub","prefix":"x:"}}}]}`

// TestChangesLeakNothing changes a tenant in every way that there is while it runs, has
// it started anew by a change, and has it sleep. It uses as much in the end as before.
func TestChangesLeakNothing(t *testing.T) {
	c, client, dir := start(t, quiet)
	a := sleeper("uid-a", "a")
	visit := func() {
		t.Helper()
		k, leave := visitor(t, dir, a)
		defer leave()
		if _, err := k.CoreV1().Namespaces().Get(t.Context(), "default", metav1.GetOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	turn := func(i int) {
		t.Helper()
		if i > 0 {
			visit() // it may sleep
			await(t, client, a.ID, ready)
		}
		before := c.Snapshot(t.Context(), 0)
		a.Authentication, a.Terms.Plan, a.Revoked = []byte(issuers), fmt.Sprint("plan-", i), []string{fmt.Sprint(i % 2)}
		put(t, client, a)
		a.Authentication = nil
		put(t, client, a)
		if now := c.Snapshot(t.Context(), 0); i > 0 && now.Revision != before.Revision {
			t.Fatal("the tenant was started anew for what it can be told")
		}
		a.ServerName = fmt.Sprintf("a-%d.test", i)
		put(t, client, a)
		visit()
	}
	turn(0)
	during := inUse(t)
	lull(t, client, a.ID)
	before := settle(t, usage{200, 64})
	if during.goroutines < before.goroutines+100 {
		t.Fatalf("a running tenant does not show: %+v, and asleep %+v", during, before)
	}
	for i := range 4 {
		turn(i + 1)
		if i%2 == 1 {
			lull(t, client, a.ID)
		}
	}
	t.Logf("before %+v, after %+v", before, settle(t, before))
}

// TestManyAtOnce makes fifty tenants at the same time. All of them answer.
func TestManyAtOnce(t *testing.T) {
	const n = 50
	_, client, dir := start(t, quiet)
	before := inUse(t)
	var group sync.WaitGroup
	errs := make(chan error, n)
	for i := range n {
		a := sleeper(fmt.Sprintf("uid-%d", i), fmt.Sprintf("t%d", i))
		a.ServiceCIDR = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 96, byte(4 * i), 0}), 22)
		k := func() error {
			s, err := client.Put(t.Context(), a)
			if err == nil && s.Phase != cell.Ready && s.Phase != cell.Degraded {
				err = fmt.Errorf("%+v", s)
			}
			return err
		}
		group.Go(func() { errs <- k() })
	}
	group.Wait()
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	for _, i := range []int{0, 17, n - 1} {
		a := sleeper(fmt.Sprintf("uid-%d", i), fmt.Sprintf("t%d", i))
		k, leave := visitor(t, dir, a)
		if _, err := k.CoreV1().Namespaces().Get(t.Context(), "default", metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
		leave()
	}
	for i := range n {
		id := sleeper(fmt.Sprintf("uid-%d", i), "x").ID
		group.Go(func() {
			if err := client.Delete(t.Context(), id); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	client.Close() // its connections that are idle are no tenant's
	t.Logf("before %+v, after %+v", before, settle(t, before))
}
