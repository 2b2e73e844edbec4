package cell_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"sublet.dev/isolation/tenant"
	"sublet.dev/tenant-apiserver/cell"
	"sublet.dev/tenant-apiserver/pki"
	"sublet.dev/tenant-apiserver/store/backup"
	"sublet.dev/tenant-apiserver/storetool"
)

// through returns a client that reaches a tenant as its users do, through the
// socket and with a certificate, before and after its control plane was restarted.
func through(t *testing.T, dir string, tn cell.Tenant) kubernetes.Interface {
	t.Helper()
	authority, err := pki.LoadOrCreate(cell.PKIDir(filepath.Join(dir, string(tn.ID))), "unused")
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := authority.IssueClient("admin", []string{"system:masters"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	k, err := kubernetes.NewForConfig(&rest.Config{
		Host: "https://tenant",
		TLSClientConfig: rest.TLSClientConfig{
			ServerName: tn.ServerName, CAData: authority.CAPEM(), CertData: cert, KeyData: key,
		},
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", filepath.Join(dir, tn.ID.Short()+".sock"))
		},
		QPS: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// witness is an informer that remembers the newest revision of each object that it
// was told of, and complains when one goes back.
type witness struct {
	mu     sync.Mutex
	newest map[string]uint64
	values map[string]string // of what is there, as far as it was told
	back   []string
	moved  chan struct{} // has a value when something happened
}

func (w *witness) saw(o any, there bool) {
	if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = gone.Obj
	}
	cm := o.(*corev1.ConfigMap)
	rev, err := strconv.ParseUint(cm.ResourceVersion, 10, 64)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.values[cm.Name] = cm.Data["v"]; !there || cm.Name == "kube-root-ca.crt" {
		delete(w.values, cm.Name)
	}
	if err != nil || rev < w.newest[cm.Name] {
		w.back = append(w.back, fmt.Sprintf("%s went from revision %d to %s", cm.Name, w.newest[cm.Name], cm.ResourceVersion))
	}
	w.newest[cm.Name] = rev
	select {
	case w.moved <- struct{}{}:
	default:
	}
}

// watch starts a witness of the ConfigMaps in default.
func watch(t *testing.T, k kubernetes.Interface) *witness {
	t.Helper()
	f := informers.NewSharedInformerFactoryWithOptions(k, 0, informers.WithNamespace("default"))
	i := f.Core().V1().ConfigMaps().Informer()
	w := &witness{newest: map[string]uint64{}, values: map[string]string{}, moved: make(chan struct{}, 1)}
	if _, err := i.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) { w.saw(o, true) }, UpdateFunc: func(_, now any) { w.saw(now, true) }, DeleteFunc: func(o any) { w.saw(o, false) },
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	f.Start(ctx.Done())
	t.Cleanup(func() { cancel(); f.Shutdown() })
	if !cache.WaitForCacheSync(t.Context().Done(), i.HasSynced) {
		t.Fatal("the informer does not start")
	}
	return w
}

// await waits until the witness was told of exactly these objects, the value of each too.
func (w *witness) await(t *testing.T, want map[string]string) {
	t.Helper()
	for {
		w.mu.Lock()
		got := maps.Clone(w.values)
		w.mu.Unlock()
		if maps.Equal(got, want) {
			return
		}
		select {
		case <-w.moved:
		case <-t.Context().Done():
			t.Fatalf("the informer has %v, want %v", got, want)
		}
	}
}

func write(t *testing.T, k kubernetes.Interface, name, value string) {
	t.Helper()
	maps := k.CoreV1().ConfigMaps("default")
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"v": value}}
	if _, err := maps.Update(t.Context(), cm, metav1.UpdateOptions{}); err == nil {
		return
	}
	if _, err := maps.Create(t.Context(), cm, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// A running tenant is backed up and restored. Who watched before sees the state of
// the backup come, and never a revision go back; the neighbour notices nothing.
func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	_, client, dir := start(t, quiet)
	a, b := tenantOf("uid-a", "a"), tenantOf("uid-b", "b")
	b.ServiceCIDR, b.InCluster = netip.MustParsePrefix("10.96.8.0/22"), netip.MustParseAddrPort("192.0.2.1:20002")
	before, neighbour := put(t, client, a), put(t, client, b)
	k := through(t, dir, a)
	for _, name := range []string{"kept", "changed", "deleted"} {
		write(t, k, name, "before")
	}
	w := watch(t, k)
	w.await(t, map[string]string{"kept": "before", "changed": "before", "deleted": "before"})

	var data bytes.Buffer
	if err := client.BackupStore(t.Context(), a.ID, "a", "test", &data); err != nil {
		t.Fatal(err)
	}
	h, f, err := backup.Verify(bytes.NewReader(data.Bytes()))
	if err != nil || h.Tenant != "uid-a" || h.Name != "a" || f.Entries < 100 {
		t.Fatalf("%+v, %+v, %v", h, f, err)
	}
	if now := await(t, client, a.ID, func(cell.Status) bool { return true }); now != before {
		t.Errorf("the backup disturbed the tenant: %+v", now)
	}

	write(t, k, "changed", "after")
	write(t, k, "new", "after")
	if err := k.CoreV1().ConfigMaps("default").Delete(t.Context(), "deleted", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.await(t, map[string]string{"kept": "before", "changed": "after", "new": "after"})

	t.Run("what is no backup of this tenant changes nothing", func(t *testing.T) {
		flipped := bytes.Clone(data.Bytes())
		flipped[len(flipped)/2] ^= 1
		for name, c := range map[string]struct {
			id   tenant.ID
			data []byte
			code int
		}{
			"flipped": {a.ID, flipped, 422}, "cut short": {a.ID, data.Bytes()[:1000], 422}, "text": {a.ID, []byte("hello"), 422},
			"another tenant's": {b.ID, data.Bytes(), 409}, "not hosted": {"uid-x", data.Bytes(), 404},
		} {
			_, err := client.RestoreStore(t.Context(), c.id, bytes.NewReader(c.data))
			var refused *cell.RefusedError
			if !errors.As(err, &refused) || refused.Code != c.code {
				t.Errorf("%s: %v", name, err)
			}
		}
		if now := await(t, client, a.ID, func(cell.Status) bool { return true }); now != before {
			t.Errorf("it was disturbed: %+v", now)
		}
	})

	t.Run("without the keys that it is encrypted with it changes nothing", func(t *testing.T) {
		keys := filepath.Join(dir, "uid-a", "keys.json")
		if err := os.Rename(keys, keys+".away"); err != nil {
			t.Fatal(err)
		}
		_, err := client.RestoreStore(t.Context(), a.ID, bytes.NewReader(data.Bytes()))
		if err == nil || !strings.Contains(err.Error(), "the backup cannot be read") || !strings.Contains(err.Error(), keys) {
			t.Errorf("%v", err)
		}
		if err := os.Rename(keys+".away", keys); err != nil {
			t.Fatal(err)
		}
		if now := await(t, client, a.ID, func(cell.Status) bool { return true }); now != before {
			t.Errorf("it was disturbed: %+v", now)
		}
	})

	res, err := client.RestoreStore(t.Context(), a.ID, &data)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", res)
	await(t, client, a.ID, func(s cell.Status) bool { return s.Phase == cell.Ready && s.Since.After(before.Since) })
	w.await(t, map[string]string{"kept": "before", "changed": "before", "deleted": "before"})
	write(t, k, "later", "works")
	w.await(t, map[string]string{"kept": "before", "changed": "before", "deleted": "before", "later": "works"})
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.back) > 0 {
		t.Errorf("time went back: %q", w.back)
	}
	for name, rev := range w.newest {
		if name != "new" && int64(rev) <= res.Before {
			t.Errorf("%s is at revision %d; %d was seen before the restore", name, rev, res.Before)
		}
	}
	if now := await(t, client, b.ID, func(cell.Status) bool { return true }); now != neighbour {
		t.Errorf("the neighbour was %+v and is %+v", neighbour, now)
	}
	// a watch from before is told to list again
	stale, err := k.CoreV1().ConfigMaps("default").Watch(t.Context(), metav1.ListOptions{ResourceVersion: strconv.FormatInt(res.Before, 10)})
	if err != nil {
		t.Fatal(err)
	}
	defer stale.Stop()
	if e := <-stale.ResultChan(); e.Type != "ERROR" || e.Object.(*metav1.Status).Code != 410 {
		t.Errorf("a watch from before got %+v", e)
	}
}

func TestLookIntoStore(t *testing.T) {
	t.Parallel()
	_, client, dir := start(t, quiet)
	a := tenantOf("uid-a", "a")
	put(t, client, a)
	write(t, through(t, dir, a), "here", "x")
	s, err := client.StoreStat(t.Context(), a.ID)
	if err != nil || s.Tenant != "uid-a" || s.Keys < 100 || s.Resources[0].Keys == 0 {
		t.Errorf("%+v, %v", s, err)
	}
	if r, err := client.CheckStore(t.Context(), a.ID); err != nil || !r.OK() || r.Keys < s.Keys {
		t.Errorf("%+v, %v", r, err)
	}
	var keys []string
	err = client.DumpStore(t.Context(), a.ID, "/registry/configmaps/default/", true, func(k storetool.Key) error {
		keys = append(keys, k.Key)
		if len(k.Value) == 0 || int64(len(k.Value)) != k.Bytes {
			t.Errorf("%+v", k)
		}
		return nil
	})
	if err != nil || !strings.Contains(strings.Join(keys, " "), "/registry/configmaps/default/here") {
		t.Errorf("%q, %v", keys, err)
	}
	if _, err := client.StoreStat(t.Context(), "uid-x"); err == nil {
		t.Error("a tenant that is not hosted has a store")
	}
	if small, err := client.ShrinkStore(t.Context(), a.ID); err != nil || small.After == 0 || small.After > small.Before {
		t.Errorf("%+v, %v", small, err)
	}
	await(t, client, a.ID, ready)
	if _, err := through(t, dir, a).CoreV1().ConfigMaps("default").Get(t.Context(), "here", metav1.GetOptions{}); err != nil {
		t.Errorf("after the file was rewritten: %v", err)
	}
	// one that is not there is not made by looking for it
	path := filepath.Join(dir, "uid-a", "store.db")
	if err := client.Delete(t.Context(), a.ID); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if s, err := client.Put(t.Context(), a); err != nil || s.Reason != cell.ReasonStoreMissing {
		t.Fatalf("%+v, %v", s, err)
	}
	var refused *cell.RefusedError
	if _, err := client.StoreStat(t.Context(), a.ID); !errors.As(err, &refused) || refused.Code != 404 {
		t.Errorf("a store that is missing: %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("it was made")
	}
}

// A tenant that sleeps is looked into and backed up without waking it; a restore
// wakes it, because there is work then.
func TestStoreOfSleeper(t *testing.T) {
	t.Parallel()
	_, client, dir := start(t, quiet)
	a := sleeper("uid-a", "a")
	put(t, client, a)
	api, leave := visitor(t, dir, a)
	write(t, api, "kept", "before")
	leave()
	slept := lull(t, client, a.ID)
	var data bytes.Buffer
	if err := client.BackupStore(t.Context(), a.ID, "a", "test", &data); err != nil {
		t.Fatal(err)
	}
	if s, err := client.StoreStat(t.Context(), a.ID); err != nil || s.Keys < 100 {
		t.Errorf("%+v, %v", s, err)
	}
	if now := await(t, client, a.ID, asleep); !now.Due.Equal(slept.Due) {
		t.Errorf("it slept with %+v and sleeps with %+v", slept, now)
	}
	if _, err := client.RestoreStore(t.Context(), a.ID, &data); err != nil {
		t.Fatal(err)
	}
	await(t, client, a.ID, ready)
}
