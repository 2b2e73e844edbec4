package etcdclient_test

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"
)

// history is every event there was, in order, and the keys after each revision.
type history struct {
	events []*clientv3.Event
	states map[int64]map[string]*mvccpb.KeyValue
}

// newHistory takes a watch of everything that missed nothing as the truth, once
// it agrees with what the writers were told and with itself: revisions without a
// gap, each one write as a whole, each event's previous value the one before.
func newHistory(t *testing.T, w *world, recorder *follower) *history {
	h := &history{states: map[int64]map[string]*mvccpb.KeyValue{1: {}}}
	for _, s := range recorder.segments {
		for _, events := range s.responses {
			h.events = append(h.events, events...)
		}
	}
	state, next := map[string]*mvccpb.KeyValue{}, int64(2)
	for i := 0; i < len(h.events); next++ {
		if rev := h.events[i].Kv.ModRevision; rev != next {
			t.Fatalf("revision %d follows %d", rev, next-1)
		}
		var got []change
		state = maps.Clone(state)
		for ; i < len(h.events) && h.events[i].Kv.ModRevision == next; i++ {
			if err := apply(state, h.events[i]); err != nil {
				t.Fatalf("revision %d: %v", next, err)
			}
			got = append(got, change{string(h.events[i].Kv.Key), string(h.events[i].Kv.Value)})
		}
		if err := w.wrote(next, got); err != nil {
			t.Fatalf("revision %d: %v", next, err)
		}
		h.states[next] = state
	}
	if next-1 != w.final.Load() {
		t.Fatalf("the history ends at %d, written was up to %d", next-1, w.final.Load())
	}
	return h
}

// apply makes an event's change, which must fit to what was there.
func apply(state map[string]*mvccpb.KeyValue, e *clientv3.Event) error {
	key := string(e.Kv.Key)
	before := state[key]
	if !proto.Equal(before, e.PrevKv) {
		return fmt.Errorf("%q was %v, its event says %v", key, before, e.PrevKv)
	}
	if e.Type == clientv3.EventTypeDelete {
		if before == nil {
			return fmt.Errorf("%q was deleted and was not there", key)
		}
		delete(state, key)
		return nil
	}
	want := &mvccpb.KeyValue{Key: e.Kv.Key, Value: e.Kv.Value, ModRevision: e.Kv.ModRevision, CreateRevision: e.Kv.ModRevision, Version: 1}
	if before != nil {
		want.CreateRevision, want.Version = before.CreateRevision, before.Version+1
	}
	if !proto.Equal(e.Kv, want) {
		return fmt.Errorf("%v instead of %v", e.Kv, want)
	}
	state[key] = e.Kv
	return nil
}

// wrote says whether a revision's events are those of one write: of the one
// that was acknowledged with it, if there is one, else of one that was cut off.
// The deletion of a key that was not there is no event.
func (w *world) wrote(rev int64, got []change) error {
	asked, acked := w.acked.LoadAndDelete(rev)
	if !acked {
		var known bool
		if asked, known = w.maybe.LoadAndDelete(got[len(got)-1].Value); !known {
			return fmt.Errorf("%v was never written, or twice", got)
		}
	}
	if !slices.Equal(got, asked.([]change)) && !slices.Equal(got, puts(asked.([]change))) {
		return fmt.Errorf("%v, written was %v", got, asked)
	}
	return nil
}

func puts(all []change) []change {
	return slices.DeleteFunc(slices.Clone(all), func(c change) bool { return c.Value == "" })
}

func watched(key, of string) bool {
	return of == key || (of == "" || strings.HasSuffix(of, "/")) && strings.HasPrefix(key, of)
}

// explains says whether a watch gave what it had to: every event of its keys
// from its first revision on, once and in order, up to where it has come.
func (h *history) explains(s segment) error {
	var got []*clientv3.Event
	upTo := s.from - 1
	for i, events := range s.responses {
		if first := events[0].Kv.ModRevision; first <= upTo && i > 0 {
			return fmt.Errorf("revision %d in a response behind one of %d", first, upTo)
		}
		got = append(got, events...)
		upTo = events[len(events)-1].Kv.ModRevision
	}
	for _, b := range s.bookmarks {
		if b.after < len(s.responses) && s.responses[b.after][0].Kv.ModRevision <= b.rev {
			return fmt.Errorf("revision %d behind the bookmark %d", s.responses[b.after][0].Kv.ModRevision, b.rev)
		}
		upTo = max(upTo, b.rev)
	}
	var want []*clientv3.Event
	for _, e := range h.events {
		if rev := e.Kv.ModRevision; rev >= s.from && rev <= upTo && watched(string(e.Kv.Key), s.key) {
			want = append(want, e)
		}
	}
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			return fmt.Errorf("the event %v is missing, up to %d", want[i], upTo)
		case i >= len(want):
			return fmt.Errorf("the event %v is too much", got[i])
		case got[i].Type != want[i].Type || !proto.Equal(got[i].Kv, want[i].Kv) || !proto.Equal(got[i].PrevKv, want[i].PrevKv):
			return fmt.Errorf("the event %v instead of %v", got[i], want[i])
		}
	}
	return nil
}

// explainsList says whether a list is what its revision left.
func (h *history) explainsList(l listing) error {
	state := h.states[l.res.Header.Revision]
	want := slices.DeleteFunc(slices.Sorted(maps.Keys(state)), func(key string) bool { return !watched(key, l.key) })
	if len(want) != len(l.res.Kvs) {
		return fmt.Errorf("a list at %d has %d keys of %d", l.res.Header.Revision, len(l.res.Kvs), len(want))
	}
	for i, kv := range l.res.Kvs {
		if !bytes.Equal(kv.Key, []byte(want[i])) || !proto.Equal(kv, state[want[i]]) {
			return fmt.Errorf("a list at %d has %v instead of %v", l.res.Header.Revision, kv, state[want[i]])
		}
	}
	return nil
}

// TestHistoryNotices makes sure that a broken promise would be seen.
func TestHistoryNotices(t *testing.T) {
	h := &history{}
	event := func(key string, rev int64) *clientv3.Event {
		return &clientv3.Event{Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: rev}}
	}
	all := []*clientv3.Event{event("a/1", 2), event("b/1", 2), event("a/2", 3), event("a/1", 4)}
	h.events = all
	good := segment{from: 2, responses: [][]*clientv3.Event{all[:3], all[3:]}, bookmarks: []bookmark{{3, 1}, {9, 2}}}
	if err := h.explains(good); err != nil {
		t.Error(err)
	}
	for name, s := range map[string]segment{
		"a gap":             {from: 2, responses: [][]*clientv3.Event{all[:2], all[3:]}},
		"a gap at the end":  {from: 2, responses: [][]*clientv3.Event{all[:2]}, bookmarks: []bookmark{{3, 1}}},
		"twice":             {from: 2, responses: [][]*clientv3.Event{all[:2], all[:2]}},
		"out of order":      {from: 3, responses: [][]*clientv3.Event{all[3:], all[2:3]}},
		"torn":              {from: 2, responses: [][]*clientv3.Event{all[:1], all[1:]}},
		"half a revision":   {from: 2, responses: [][]*clientv3.Event{all[:1]}},
		"behind a bookmark": {from: 2, responses: [][]*clientv3.Event{all[:2], all[2:]}, bookmarks: []bookmark{{3, 1}}},
		"not its key":       {from: 2, key: "a/", responses: [][]*clientv3.Event{all[:2]}},
		"too early":         {from: 3, responses: [][]*clientv3.Event{all}},
		"another value":     {from: 4, responses: [][]*clientv3.Event{{event("a/2", 4)}}},
	} {
		if h.explains(s) == nil {
			t.Errorf("%s was not noticed", name)
		}
	}
}
