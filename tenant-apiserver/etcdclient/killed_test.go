package etcdclient_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// killedPath tells a copy of the test binary where the store is that it works on
// until it is killed.
const killedPath = "SUBLET_ETCDCLIENT_TEST_PATH"

// killedStart is a start, for the copy to go on from.
const killedStart = "SUBLET_ETCDCLIENT_TEST_START"

// start is where the process before has come to.
type start struct {
	Seen      []int64 // by each watcher
	Compacted int64   // at most
}

// record is a line from a process that is going to be killed: one of a write
// that was tried, or acknowledged; a compaction to come; a watch that began, or
// gave something; a list.
type record struct {
	Tried   []change `json:",omitempty"`
	Acked   int64    `json:",omitempty"`
	Compact int64    `json:",omitempty"`

	Watcher  int
	From     int64                 `json:",omitempty"`
	Revision int64                 `json:",omitempty"`
	Events   []*clientv3.Event     `json:",omitempty"`
	List     *clientv3.GetResponse `json:",omitempty"`
}

// TestWatchGuaranteesKilled is TestWatchGuarantees over processes that are killed
// in the midst of all: what a watcher was given before must be what a later one
// finds, whether its writer was told or not.
func TestWatchGuaranteesKilled(t *testing.T) {
	w := &world{path: filepath.Join(t.TempDir(), "store.db")}
	all := followers(t, w)
	lives := 6
	if testing.Short() {
		lives = 2
	}
	for range lives {
		untilKilled(t, w, all)
	}
	w.open(t)
	defer func() { w.store.Close() }()
	w.finish(t)
	var watching sync.WaitGroup
	for _, r := range all {
		watching.Go(r.run)
	}
	watching.Wait()
	w.judge(t, all)
}

// untilKilled runs one process and kills it when it has told enough.
func untilKilled(t *testing.T, w *world, all []*follower) {
	t.Helper()
	at := start{Compacted: w.target.Load()}
	for _, r := range all {
		at.Seen = append(at.Seen, r.seen.Load())
	}
	positions, err := json.Marshal(at)
	if err != nil {
		t.Fatal(err)
	}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestUntilKilled$", "-test.timeout=10m", "-test.v")
	var said bytes.Buffer
	cmd.Stdout = &said
	cmd.Env = append(os.Environ(), killedPath+"="+w.path, killedStart+"="+string(positions))
	cmd.ExtraFiles = []*os.File{in}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	lines, killAt := bufio.NewScanner(out), 2000+rand.IntN(4000)
	lines.Buffer(nil, 16<<20)
	tried := map[string][]change{}
	n := 0
	for ; lines.Scan(); n++ {
		var r record
		if json.Unmarshal(lines.Bytes(), &r) != nil {
			continue // the last line, cut by the kill
		}
		w.remember(r, all, tried)
		if n == killAt {
			cmd.Process.Kill()
		}
	}
	cmd.Wait()
	if n < killAt || bytes.Contains(said.Bytes(), []byte("_test.go:")) { // it has errors
		t.Fatalf("the process told %d lines of %d, and said: %s", n, killAt, said.Bytes())
	}
	for value, changes := range tried {
		w.maybe.Store(value, changes)
		w.unknown.Add(1)
	}
}

// remember takes one line.
func (w *world) remember(r record, all []*follower, tried map[string][]change) {
	switch {
	case r.Acked > 0:
		w.acked.Store(r.Acked, r.Tried)
		delete(tried, r.Tried[len(r.Tried)-1].Value)
	case r.Tried != nil:
		tried[r.Tried[len(r.Tried)-1].Value] = r.Tried
	case r.Compact > 0:
		w.target.Store(r.Compact)
	case r.From > 0:
		all[r.Watcher].begin(r.From)
	case r.List != nil:
		all[r.Watcher].adopt(r.List)
	default:
		all[r.Watcher].take(clientv3.WatchResponse{Header: &pb.ResponseHeader{Revision: r.Revision}, Events: r.Events})
	}
}

// TestUntilKilled is the process of TestWatchGuaranteesKilled.
func TestUntilKilled(t *testing.T) {
	path := os.Getenv(killedPath)
	if path == "" {
		t.Skip("is run, and killed, by TestWatchGuaranteesKilled")
	}
	var at start
	if err := json.Unmarshal([]byte(os.Getenv(killedStart)), &at); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	to := json.NewEncoder(os.NewFile(3, "records")) // a line is one write
	w := &world{path: path, note: func(r record) {
		mu.Lock()
		defer mu.Unlock()
		if err := to.Encode(r); err != nil {
			t.Error(err)
		}
	}}
	w.target.Store(at.Compacted)
	w.open(t)
	all := followers(t, w)
	var working sync.WaitGroup
	for i, r := range all {
		r.seen.Store(at.Seen[i])
		working.Go(r.run)
	}
	for i := range 4 {
		working.Go(func() { w.write(t, fmt.Sprint(os.Getpid(), "/", i), 1<<30) })
	}
	working.Go(func() { w.compact(t, all[0], nil) })
	working.Wait()
}
