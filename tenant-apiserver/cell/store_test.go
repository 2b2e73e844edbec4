package cell_test

import (
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/cell"
)

// apis remembers how to reach the tenants of a cell.
type apis struct {
	mu sync.Mutex
	of map[tenant.ID]*rest.Config
}

func (a *apis) companion(t tenant.Tenant, api *rest.Config, _ informers.SharedInformerFactory) (cell.Companion, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.of == nil {
		a.of = map[tenant.ID]*rest.Config{}
	}
	a.of[t.ID] = api
	return quiet(t, api, nil)
}

func (a *apis) client(t *testing.T, id tenant.ID) kubernetes.Interface {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	k, err := kubernetes.NewForConfig(a.of[id])
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func put(t *testing.T, client *cell.Client, tn cell.Tenant) cell.Status {
	t.Helper()
	if _, err := client.Put(t.Context(), tn); err != nil {
		t.Fatal(err)
	}
	return await(t, client, tn.ID, func(s cell.Status) bool { return s.Phase == cell.Ready })
}

// blob is an object that takes room in a store.
func blob(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"a": strings.Repeat("x", 100<<10)}}
}

// limitFiles keeps files of this process from growing beyond size, which bbolt
// cannot tell from a failing disk. The function it returns lifts the limit. It is
// for a process that runs this test alone: the log that go test lets a test process
// write for its cache is a file like the others.
func limitFiles(t *testing.T, size uint64) (lift func()) {
	t.Helper()
	if os.Getenv(aloneTest) != t.Name() {
		t.Fatal("this is not the test's own process")
	}
	signal.Ignore(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	set := func(l syscall.Rlimit) {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &l); err != nil {
			t.Fatal(err)
		}
	}
	set(syscall.Rlimit{Cur: size, Max: before.Max})
	lift = sync.OnceFunc(func() { set(before) })
	t.Cleanup(func() { lift(); signal.Reset(syscall.SIGXFSZ) })
	return lift
}

// A tenant whose disk fails is started again, keeps what was acknowledged, and
// its neighbour does not notice.
func TestStoreOutOfService(t *testing.T) {
	t.Parallel()
	if !alone(t) {
		return
	}
	var reach apis
	_, client, dir := start(t, reach.companion)
	a, b := tenantOf("uid-a", "a"), tenantOf("uid-b", "b")
	b.ServiceCIDR, b.InCluster = netip.MustParsePrefix("10.96.8.0/22"), netip.MustParseAddrPort("192.0.2.1:20002")
	ready, neighbour := put(t, client, a), put(t, client, b)
	info, err := os.Stat(filepath.Join(dir, "uid-a", "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	const room = 1 << 20
	lift := limitFiles(t, uint64(info.Size())+room)
	maps := reach.client(t, "uid-a").CoreV1().ConfigMaps("default")
	var acknowledged []string
	for i := 0; err == nil; i++ {
		name := fmt.Sprintf("map-%d", i)
		if _, err = maps.Create(t.Context(), blob(name), metav1.CreateOptions{}); err == nil {
			acknowledged = append(acknowledged, name)
		}
	}
	t.Logf("after %d writes: %v", len(acknowledged), err)
	lift()
	again := await(t, client, "uid-a", func(s cell.Status) bool { return s.Phase == cell.Ready && s.Since.After(ready.Since) })
	t.Logf("ready again at %s", again.Since)
	maps = reach.client(t, "uid-a").CoreV1().ConfigMaps("default")
	for _, name := range acknowledged {
		if _, err := maps.Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
	}
	if _, err := maps.Create(t.Context(), blob("after"), metav1.CreateOptions{}); err != nil {
		t.Errorf("write after the restart: %v", err)
	}
	if now := await(t, client, "uid-b", func(cell.Status) bool { return true }); now != neighbour {
		t.Errorf("the neighbour was %+v and is %+v", neighbour, now)
	}
}

// While the disk goes on failing, the status says what is wrong.
func TestStoreStaysOutOfService(t *testing.T) {
	t.Parallel()
	if !alone(t) {
		return
	}
	var reach apis
	_, client, _ := start(t, reach.companion)
	put(t, client, tenantOf("uid-a", "a"))
	lift := limitFiles(t, 4096)
	maps := reach.client(t, "uid-a").CoreV1().ConfigMaps("default")
	for i, err := 0, error(nil); err == nil; i++ {
		_, err = maps.Create(t.Context(), blob(fmt.Sprint("map-", i)), metav1.CreateOptions{})
	}
	failed := await(t, client, "uid-a", func(s cell.Status) bool { return s.Phase == cell.Failed })
	if failed.Reason != cell.ReasonStoreFailed || !strings.Contains(failed.Message, "store.db") || strings.Contains(failed.Message, "\n") {
		t.Errorf("status %+v", failed)
	}
	lift()
	await(t, client, "uid-a", func(s cell.Status) bool { return s.Phase == cell.Ready })
}
