package etcdclient_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"go.etcd.io/etcd/client/v3/kubernetes"

	"sublet.dev/tenant-apiserver/etcdclient"
)

// TestOptimisticPut does the same with our OptimisticPut and, on another store, with
// that of etcd's client over KV, and wants the same answers and the same contents.
func TestOptimisticPut(t *testing.T) {
	ours, theirs := etcdclient.New(openStore(t)), etcdclient.New(openStore(t))
	defer ours.Close()
	defer theirs.Close()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for i, put := range []struct {
		ctx      context.Context
		key      string
		size     int
		expected int64
		opts     kubernetes.PutOptions
		refused  bool // no object is put, or an error is returned
	}{
		{key: "/a", size: 10},
		{key: "/a", size: 20, refused: true},
		{key: "/a", size: 20, opts: kubernetes.PutOptions{GetOnFailure: true}, refused: true},
		{key: "/a", size: 30, expected: 2, opts: kubernetes.PutOptions{GetOnFailure: true}},
		{key: "/b", size: 10, expected: 7, opts: kubernetes.PutOptions{GetOnFailure: true}, refused: true},
		{key: "/b", size: 0},
		{key: "/c", size: 10, opts: kubernetes.PutOptions{LeaseID: 5}, refused: true},
		{key: "", size: 10, refused: true},
		{key: "/c", size: 2 << 20, refused: true},
		{key: "/c", size: 10, ctx: gone, refused: true},
	} {
		if put.ctx == nil {
			put.ctx = t.Context()
		}
		value := []byte(strings.Repeat("v", put.size))
		a, errA := ours.Kubernetes.OptimisticPut(put.ctx, put.key, value, put.expected, put.opts)
		b, errB := theirs.OptimisticPut(put.ctx, put.key, value, put.expected, put.opts)
		if fmt.Sprintf("%v %v %v %T %v", a.Succeeded, a.Revision, a.KV, errA, errA) != fmt.Sprintf("%v %v %v %T %v", b.Succeeded, b.Revision, b.KV, errB, errB) {
			t.Errorf("put %d: %+v, %v, want %+v, %v", i, a, errA, b, errB)
		}
		if refused := errA != nil || !a.Succeeded; refused != put.refused {
			t.Errorf("put %d: %+v, %v", i, a, errA)
		}
	}
	a, errA := ours.Kubernetes.List(t.Context(), "/", kubernetes.ListOptions{})
	b, errB := theirs.List(t.Context(), "/", kubernetes.ListOptions{})
	if errA != nil || errB != nil || fmt.Sprint(a) != fmt.Sprint(b) || a.Count != 2 {
		t.Errorf("%v, %v, want %v, %v", a, errA, b, errB)
	}
}
