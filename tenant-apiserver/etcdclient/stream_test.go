package etcdclient_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"sublet.dev/tenant-apiserver/etcdclient"
)

// TestStream compares streamed ranges with plain ones, which other tests judge,
// while the keys change.
func TestStream(t *testing.T) {
	c := etcdclient.New(openStore(t))
	ctx := t.Context()
	const keys = 300
	for i := range keys {
		put(t, c.KV, fmt.Sprintf("k/%03d", i), strings.Repeat("x", i*100))
	}
	middle := put(t, c.KV, "k/new", "")
	put(t, c.KV, "l", "")
	for name, opts := range map[string][]clientv3.OpOption{
		"all":        nil,
		"none":       {clientv3.WithRange("k/000")},
		"limit":      {clientv3.WithLimit(75)},
		"limit 1":    {clientv3.WithLimit(1)},
		"limit all":  {clientv3.WithLimit(keys + 1)},
		"keys only":  {clientv3.WithKeysOnly()},
		"count only": {clientv3.WithCountOnly()},
		"revision":   {clientv3.WithRev(middle - 1)},
	} {
		opts = append([]clientv3.OpOption{clientv3.WithPrefix()}, opts...)
		want, err := c.KV.Get(ctx, "k/", opts...)
		if err != nil {
			t.Fatal(err)
		}
		stream, err := c.KV.GetStream(ctx, "k/", opts...)
		if err != nil {
			t.Fatal(err)
		}
		got := &clientv3.GetResponse{}
		for r := range stream {
			if r.Err() != nil {
				t.Errorf("%s: %v", name, r.Err())
				break
			}
			if len(got.Kvs) == 0 { // what the stream began with is what it goes on with
				put(t, c.KV, "k/299", name)
			}
			proto.Merge((*pb.RangeResponse)(got), r.RangeResponse)
		}
		if !proto.Equal((*pb.RangeResponse)(got), (*pb.RangeResponse)(want)) {
			t.Errorf("%s: %d keys of %d, more %v, revision %d; want %d of %d, %v, %d", name,
				len(got.Kvs), got.Count, got.More, got.Header.Revision, len(want.Kvs), want.Count, want.More, want.Header.Revision)
		}
	}
}

// TestStreamChunks wants large ranges in parts, and an error in their midst told.
func TestStreamChunks(t *testing.T) {
	c := etcdclient.New(openStore(t))
	ctx := t.Context()
	for i := range 64 {
		put(t, c.KV, fmt.Sprintf("k/%03d", i), strings.Repeat("x", 64<<10))
	}
	stream, err := c.KV.GetStream(ctx, "k/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if first := <-stream; len(first.RangeResponse.Kvs) == 0 || len(first.RangeResponse.Kvs) > 10 || first.RangeResponse.Header != nil {
		t.Errorf("the first chunk has %d keys, header %v", len(first.RangeResponse.Kvs), first.RangeResponse.Header)
	}
	last := put(t, c.KV, "other", "")
	if _, err := c.KV.Compact(ctx, last); err != nil {
		t.Fatal(err)
	}
	for r := range stream { // at most two chunks were read ahead
		err = r.Err()
	}
	if !errors.Is(err, rpctypes.ErrCompacted) {
		t.Errorf("after a compaction: %v", err)
	}
}
