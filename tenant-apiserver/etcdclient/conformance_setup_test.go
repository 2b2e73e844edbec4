package etcdclient_test

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"k8s.io/apimachinery/pkg/api/apitesting"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/apis/example"
	examplev1 "k8s.io/apiserver/pkg/apis/example/v1"
	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/etcd3"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
	"k8s.io/apiserver/pkg/storage/value"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	featuregatetesting "k8s.io/component-base/featuregate/testing"
	"k8s.io/utils/clock"

	"sublet.dev/tenant-apiserver/etcdclient"
)

const testPrefix = "test!"

// upstream is upstream's etcd3 storage over a store of ours, with the handles
// that its test suite wants.
type upstream struct {
	storage.Interface
	client *kubernetes.Client
	codec  runtime.Codec
	swap   *swap
}

type setup struct {
	codec       runtime.Codec
	transformer value.Transformer
	options     []etcdclient.Option
}

// newUpstream builds the storage as upstream's own tests do.
func newUpstream(t testing.TB, change ...func(*setup)) *upstream {
	t.Helper()
	// What a server over this client runs with, see DisabledFeatureGates.
	featuregatetesting.SetFeatureGateDuringTest(t, utilfeature.DefaultFeatureGate, features.EtcdRangeStream, false)
	o := setup{
		codec:       apitesting.TestCodec(codecs, examplev1.SchemeGroupVersion),
		transformer: storagetesting.NewPrefixTransformer([]byte(testPrefix), false),
	}
	for _, c := range change {
		c(&o)
	}
	s := openStore(t)
	u := &upstream{client: etcdclient.New(s, o.options...), codec: o.codec, swap: &swap{}}
	u.swap.set(o.transformer)
	recorder := storagetesting.NewKubernetesRecorder(u.client.Kubernetes)
	u.client.Kubernetes, u.client.KV = recorder, storagetesting.NewKVRecorder(u.client.KV, recorder)

	// The compactor has a client of its own: it reads whenever a second has
	// passed, and reads are counted.
	another := etcdclient.New(s)
	compactor := etcd3.NewCompactor(another.Client, 0, clock.RealClock{}, nil)
	versioner := storage.APIObjectVersioner{}
	leases := etcd3.NewDefaultLeaseManagerConfig()
	leases.ReuseDurationSeconds = 1
	api, err := etcd3.New(u.client, compactor, o.codec,
		func() runtime.Object { return &example.Pod{} }, func() runtime.Object { return &example.PodList{} },
		"", "/pods/", schema.GroupResource{Resource: "pods"}, u.swap, leases, etcd3.NewDefaultDecoder(o.codec, versioner), versioner)
	if err != nil {
		t.Fatal(err)
	}
	u.Interface = api
	t.Cleanup(func() {
		api.Close()
		compactor.Stop()
		u.client.Close()
		another.Close()
	})
	return u
}

// swap is a transformer that tests can replace.
type swap struct {
	to atomic.Pointer[value.Transformer]
}

func (s *swap) set(t value.Transformer) { s.to.Store(&t) }

func (s *swap) TransformFromStorage(ctx context.Context, data []byte, c value.Context) ([]byte, bool, error) {
	return (*s.to.Load()).TransformFromStorage(ctx, data, c)
}

func (s *swap) TransformToStorage(ctx context.Context, data []byte, c value.Context) ([]byte, error) {
	return (*s.to.Load()).TransformToStorage(ctx, data, c)
}

func (u *upstream) UpdateTransformer(modify storagetesting.TransformerModifier) (restore func()) {
	old := *u.swap.to.Load()
	u.swap.set(modify(old))
	return func() { u.swap.set(old) }
}

func (u *upstream) UpdatePrefixTransformer(modify storagetesting.PrefixTransformerModifier) (restore func()) {
	return u.UpdateTransformer(func(old value.Transformer) value.Transformer {
		changed := *old.(*storagetesting.PrefixTransformer)
		return modify(&changed)
	})
}

// checkStored is upstream's invariant: no versions among the stored bytes.
func (u *upstream) checkStored(ctx context.Context, t *testing.T, key string) {
	got, err := u.client.KV.Get(ctx, key)
	if err != nil || len(got.Kvs) != 1 {
		t.Fatalf("get %s: %v", key, err)
	}
	obj, err := runtime.Decode(u.codec, got.Kvs[0].Value[len(testPrefix):])
	if err != nil {
		t.Fatalf("decode %s: %v", key, err)
	}
	//lint:ignore SA1019 the suite must see that the deprecated field is not stored either
	if pod := obj.(*example.Pod); pod.ResourceVersion != "" || pod.SelfLink != "" {
		//lint:ignore SA1019 as above
		t.Errorf("stored with resourceVersion %q, selfLink %q", pod.ResourceVersion, pod.SelfLink)
	}
}

func (u *upstream) increaseRV(ctx context.Context, t *testing.T) int64 {
	resp, err := u.client.KV.Put(ctx, "increaseRV", "ok")
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Revision
}

// compact runs upstream's compaction and waits until the storage has seen it.
func (u *upstream) compact(ctx context.Context, t *testing.T, resourceVersion string) {
	rev, err := strconv.ParseInt(resourceVersion, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	version, _, _, err := etcd3.Compact(ctx, u.client.Client, 0, rev)
	if err == nil && version != 1 {
		_, _, _, err = etcd3.Compact(ctx, u.client.Client, version, rev)
	}
	if err != nil {
		t.Fatal(err)
	}
	if !utilfeature.DefaultFeatureGate.Enabled(features.ListFromCacheSnapshot) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for u.CompactRevision() != rev {
		select {
		case <-ctx.Done():
			t.Fatalf("compact revision is %d, want %d", u.CompactRevision(), rev)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// checkCalls is upstream's invariant about the number of reads that a list takes.
func (u *upstream) checkCalls(t *testing.T, pageSize, processed uint64) {
	const maxPage = 10_000
	if reads := (*u.swap.to.Load()).(*storagetesting.PrefixTransformer).GetReadsAndReset(); reads != processed {
		t.Errorf("%d values were decoded, want %d", reads, processed)
	}
	calls := uint64(1)
	if page := pageSize; page != 0 {
		for sum := uint64(1); sum < processed; sum += page {
			page = min(2*page, maxPage)
			calls++
		}
	}
	if reads := u.client.KV.(*storagetesting.KVRecorder).GetReadsAndReset(); reads != calls {
		t.Errorf("%d reads, want %d", reads, calls)
	}
}

// keys lists the keys under the resource, for upstream's size estimation.
func (u *upstream) keys(ctx context.Context) ([]string, error) {
	resp, err := u.client.KV.Get(ctx, "/pods/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, kv := range resp.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return keys, nil
}

var errSynthetic = errors.New("synthetic error")

// failing is a transformer that fails on command.
type failing struct {
	value.Transformer
	on atomic.Bool
}

func (f *failing) set(on bool) { f.on.Store(on) }

func (f *failing) TransformFromStorage(ctx context.Context, data []byte, c value.Context) ([]byte, bool, error) {
	if f.on.Load() {
		return nil, false, errSynthetic
	}
	return f.Transformer.TransformFromStorage(ctx, data, c)
}

// failingCodec is a codec that fails on command.
type failingCodec struct {
	runtime.Codec
	on atomic.Bool
}

func (f *failingCodec) set(on bool) { f.on.Store(on) }

func (f *failingCodec) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	if f.on.Load() {
		return nil, nil, errSynthetic
	}
	return f.Codec.Decode(data, defaults, into)
}

// corruptObject returns upstream's unexported error for an object that cannot
// be decrypted, as its own wrapper makes it.
func corruptObject(t *testing.T) error {
	f := &failing{}
	f.set(true)
	_, _, err := etcd3.WithCorruptObjErrorHandlingTransformer(f).TransformFromStorage(t.Context(), nil, nil)
	if err == nil {
		t.Fatal("upstream's wrapper made no error")
	}
	return err
}
