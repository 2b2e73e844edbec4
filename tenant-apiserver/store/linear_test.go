package store

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// access is one operation on one key: a read, or a put that is done only if the
// key still has the value that the client expects. "" is an absent key.
type access struct {
	key        string
	write      bool
	expect, to string
}

// outcome is the value read, or whether the put was done.
type outcome struct {
	value string
	done  bool
}

// register is a key as its clients see it.
var register = porcupine.Model{
	Partition: func(all []porcupine.Operation) (parts [][]porcupine.Operation) {
		keys := map[string][]porcupine.Operation{}
		for _, op := range all {
			key := op.Input.(access).key
			keys[key] = append(keys[key], op)
		}
		for _, ops := range keys {
			parts = append(parts, ops)
		}
		return parts
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		in, out := input.(access), output.(outcome)
		switch {
		case !in.write:
			return out.value == state, state
		case in.expect == state:
			return out.done, in.to
		}
		return !out.done, state
	},
}

// TestLinearizable records what concurrent clients are told, and wants an order
// of all operations, each between its call and its return, that explains it.
// Checkpoints run all the time, and in the middle the clients go on with what a
// killed store leaves.
func TestLinearizable(t *testing.T) {
	o := Options{NoSync: true, pace: pace{layerBytes: 2 << 10, backlogBytes: 8 << 10, layerAge: time.Millisecond, retry: time.Second}}
	path := filepath.Join(t.TempDir(), "store.db")
	first, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	var open sync.RWMutex // held for reading by whoever uses s
	s := first
	const clients, each, crashAt = 8, 200, 700
	var count atomic.Int64
	var mu sync.Mutex
	var history []porcupine.Operation
	var all sync.WaitGroup
	begin := time.Now()
	for id := range clients {
		all.Go(func() {
			known := map[string]string{}
			for i := range each {
				in := access{key: fmt.Sprint(rand.IntN(4)), write: rand.IntN(2) == 0, to: fmt.Sprintf("%d/%d", id, i)}
				in.expect = known[in.key]
				if count.Add(1) == crashAt {
					open.Lock()
					path = crashed(t, path)
					s = openAt(t, path, o)
					open.Unlock()
				}
				open.RLock()
				call := time.Since(begin)
				out, err := perform(t, s, in)
				back := time.Since(begin)
				open.RUnlock()
				if err != nil {
					t.Error(err)
					return
				}
				if known[in.key] = out.value; out.done {
					known[in.key] = in.to
				}
				mu.Lock()
				history = append(history, porcupine.Operation{
					ClientId: id, Input: in, Output: out, Call: int64(call), Return: int64(back),
				})
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if got := porcupine.CheckOperationsTimeout(register, history, 10*time.Minute); got != porcupine.Ok {
		t.Errorf("%d operations are %s", len(history), got)
	}
}

func perform(t *testing.T, s *Store, in access) (outcome, error) {
	key := Range{Key: []byte(in.key)}
	if !in.write {
		res, err := s.Read(t.Context(), Read{Range: key})
		if err != nil || len(res.KVs) == 0 {
			return outcome{}, err
		}
		return outcome{value: string(res.KVs[0].Value)}, nil
	}
	condition := Compare{Key: key.Key, Target: Value, Value: []byte(in.expect)}
	if in.expect == "" {
		condition = Compare{Key: key.Key, Target: Version}
	}
	res, err := s.Txn(t.Context(), Txn{
		If:   []Compare{condition},
		Then: []Op{{Put: &Put{Key: key.Key, Value: []byte(in.to)}}},
		Else: []Op{{Read: &Read{Range: key}}},
	})
	if err != nil || res.Succeeded {
		return outcome{done: true}, err
	}
	out := outcome{}
	if kvs := res.Results[0].Read.KVs; len(kvs) == 1 {
		out.value = string(kvs[0].Value)
	}
	return out, nil
}
