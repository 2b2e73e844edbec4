package informer_test

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"strconv"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/apiserver/pkg/storage/value/encrypt/secretbox"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/cache"

	"sublet.dev/tenant-apiserver/etcdclient"
	"sublet.dev/tenant-apiserver/internal/informer"
	"sublet.dev/tenant-apiserver/store"
)

const root = "/registry/"

// world is a store with ConfigMaps and Namespaces, and what is fed from it.
type world struct {
	t        *testing.T
	kv       clientv3.KV
	source   *cutSource
	codec    runtime.Codec
	sealing  value.Transformer
	factory  *informer.Factory
	stopFeed context.CancelFunc
	start    func()
}

// cutSource is a store whose watches can be ended.
type cutSource struct {
	clientv3.KV
	watcher clientv3.Watcher

	mu     sync.Mutex
	cuts   []context.CancelFunc
	broken error  // what every read is answered with; nil: it works
	asked  func() // called for each such answer
}

// Get implements informer.Source.
func (s *cutSource) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	s.mu.Lock()
	err, asked := s.broken, s.asked
	s.mu.Unlock()
	if err != nil {
		asked()
		return nil, err
	}
	return s.KV.Get(ctx, key, opts...)
}

// fail has all reads fail, and calls asked for each; with nil they work again.
func (s *cutSource) fail(err error, asked func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken, s.asked = err, asked
}

func (s *cutSource) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	ctx, cut := context.WithCancel(ctx)
	s.mu.Lock()
	s.cuts = append(s.cuts, cut)
	s.mu.Unlock()
	return s.watcher.Watch(ctx, key, opts...)
}

// cut ends all watches, as a store does that compacted what they have not read.
func (s *cutSource) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, cut := range s.cuts {
		cut()
	}
	s.cuts = nil
}

func newWorld(t *testing.T, change func(*informer.Config)) *world {
	t.Helper()
	s, err := store.Open(filepath.Join(t.TempDir(), "store.db"), store.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	client := etcdclient.New(s)
	block := secretbox.NewSecretboxTransformer([32]byte{})
	w := &world{
		t: t, kv: client.KV, source: &cutSource{KV: client.KV, watcher: client.Watcher},
		codec: scheme.Codecs.LegacyCodec(corev1.SchemeGroupVersion), sealing: block,
	}
	c := informer.Config{
		Source: w.source, Root: root,
		Resolve: func(gvk schema.GroupVersionKind) (informer.Kind, bool) {
			prefix, ok := map[string]string{"ConfigMap": root + "configmaps/", "Namespace": root + "namespaces/"}[gvk.Kind]
			return informer.Kind{Prefix: prefix, Decoder: scheme.Codecs.UniversalDecoder(gvk.GroupVersion()), Transformer: block}, ok
		},
	}
	if change != nil {
		change(&c)
	}
	ctx, stop := context.WithCancel(t.Context())
	w.factory, w.stopFeed = informer.New(ctx, c), stop
	t.Cleanup(func() {
		stop()
		w.factory.Shutdown()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	w.start = func() { w.factory.StartWithContext(ctx) }
	return w
}

func (w *world) maps() cache.SharedIndexInformer {
	return w.factory.Core().V1().ConfigMaps().Informer()
}

func configMap(name, data string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name)},
		Data:       map[string]string{"v": data},
	}
}

func keyOf(name string) string { return root + "configmaps/ns/" + name }

// encode returns an object as it is before it is encrypted.
func (w *world) encode(name, data string) string {
	w.t.Helper()
	raw, err := runtime.Encode(w.codec, configMap(name, data))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(raw)
}

// compact forgets all revisions before one.
func (w *world) compact(rev string) {
	w.t.Helper()
	n, err := strconv.ParseInt(rev, 10, 64)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.kv.Compact(w.t.Context(), n); err != nil {
		w.t.Fatal(err)
	}
}

// put writes an object as upstream's storage does, and returns its revision.
func (w *world) put(name, data string) string {
	w.t.Helper()
	sealed, err := w.sealing.TransformToStorage(w.t.Context(), []byte(w.encode(name, data)), value.DefaultContext(keyOf(name)))
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := w.kv.Put(w.t.Context(), keyOf(name), string(sealed))
	if err != nil {
		w.t.Fatal(err)
	}
	return strconv.FormatInt(r.Header.Revision, 10)
}

func (w *world) remove(name string) string {
	w.t.Helper()
	r, err := w.kv.Delete(w.t.Context(), keyOf(name))
	if err != nil {
		w.t.Fatal(err)
	}
	return strconv.FormatInt(r.Header.Revision, 10)
}

// until waits for a condition that others bring about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, time.Minute, true, func(context.Context) (bool, error) { return ok(), nil })
	if err != nil {
		t.Fatalf("waiting until %s: %v", what, err)
	}
}

// record is a handler that keeps what it was told, and checks that it makes sense.
type record struct {
	t    *testing.T
	hold chan struct{} // not nil: calls wait until it is closed

	mu    sync.Mutex
	calls []string
	state map[string]string // name -> data, as told
}

func newRecord(t *testing.T) *record { return &record{t: t, state: map[string]string{}} }

func (r *record) note(format string, args ...any) {
	r.calls = append(r.calls, fmt.Sprintf(format, args...))
}

func (r *record) begin() func() {
	if r.hold != nil {
		<-r.hold
	}
	r.mu.Lock()
	return r.mu.Unlock
}

func (r *record) OnAdd(obj any, initial bool) {
	defer r.begin()()
	m := obj.(*corev1.ConfigMap)
	if _, there := r.state[m.Name]; there {
		r.t.Errorf("%s was added twice", m.Name)
	}
	r.state[m.Name] = m.Data["v"]
	r.note("add %s=%s@%s initial=%t", m.Name, m.Data["v"], m.ResourceVersion, initial)
}

func (r *record) OnUpdate(old, obj any) {
	defer r.begin()()
	before, m := old.(*corev1.ConfigMap), obj.(*corev1.ConfigMap)
	if was, there := r.state[m.Name]; !there || was != before.Data["v"] {
		r.t.Errorf("%s was updated from %q, which the handler has as %q, %t", m.Name, before.Data["v"], was, there)
	}
	r.state[m.Name] = m.Data["v"]
	r.note("update %s=%s->%s@%s", m.Name, before.Data["v"], m.Data["v"], m.ResourceVersion)
}

func (r *record) OnDelete(obj any) {
	defer r.begin()()
	unknown, ok := obj.(cache.DeletedFinalStateUnknown)
	if ok {
		obj = unknown.Obj
	}
	m := obj.(*corev1.ConfigMap)
	if _, there := r.state[m.Name]; !there {
		r.t.Errorf("%s was deleted, and the handler does not have it", m.Name)
	}
	delete(r.state, m.Name)
	if ok {
		r.note("lost %s", unknown.Key)
		return
	}
	r.note("delete %s=%s@%s", m.Name, m.Data["v"], m.ResourceVersion)
}

func (r *record) told() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string{}, r.calls...)
}

func (r *record) states() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.state)
}

func add(t *testing.T, i cache.SharedIndexInformer, h cache.ResourceEventHandler) cache.ResourceEventHandlerRegistration {
	t.Helper()
	handle, err := i.AddEventHandler(h)
	if err != nil {
		t.Fatal(err)
	}
	return handle
}

func (w *world) synced(handles ...cache.ResourceEventHandlerRegistration) {
	w.t.Helper()
	for _, h := range handles {
		select {
		case <-h.HasSyncedChecker().Done():
		case <-w.t.Context().Done():
			w.t.Fatal("a handler does not sync")
		}
	}
}

func expect(t *testing.T, r *record, want ...string) {
	t.Helper()
	until(t, fmt.Sprintf("the handler was told %d changes; now %q", len(want), r.told()), func() bool { return len(r.told()) >= len(want) })
	if got := r.told(); !reflect.DeepEqual(got, want) {
		t.Errorf("the handler was told\n%q\nwant\n%q", got, want)
	}
}
