package store

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// survivor is what the parent knows of a store whose processes are killed: what
// is there, and what each client was about to change.
type survivor struct {
	path    string
	there   map[string]string            // keys and leases
	pending map[string]map[string]string // client -> changes
	floor   int64                        // revision when the store was last looked at
	highest int64                        // revision acknowledged since
	acked   int
}

func newSurvivor(t *testing.T) *survivor {
	return &survivor{
		path: filepath.Join(t.TempDir(), "store.db"), there: map[string]string{}, pending: map[string]map[string]string{},
	}
}

// live runs one process, and kills it after some lines; 0: not.
func (v *survivor) live(t *testing.T, lines int, env ...string) (killed bool) {
	t.Helper()
	cmd := child(t, "load", v.path, env...)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	in := bufio.NewReaderSize(pipe, 1<<20)
	for n := 0; ; {
		line, err := in.ReadString('\n')
		if err == io.EOF {
			break // what is not a whole line was cut by the kill
		}
		if err != nil {
			t.Fatal(err)
		}
		switch field := strings.Fields(line); field[0] {
		case "S":
			k, value, _ := strings.Cut(field[1], "=")
			found[k] = value
		case "R":
			v.found(t, found, number(t, field[1]))
		case "I":
			n++
			v.intent(field[1], field[2:])
		case "A":
			n++
			v.acknowledged(t, field[1], number(t, field[2]))
		}
		if n == lines && n > 0 {
			cmd.Process.Signal(syscall.SIGKILL)
		}
	}
	err = cmd.Wait()
	if killed = err != nil && cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL; err != nil && !killed {
		t.Fatal(err)
	}
	return killed
}

func number(t *testing.T, s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (v *survivor) intent(client string, changes []string) {
	v.pending[client] = map[string]string{}
	for _, c := range changes {
		k, value, _ := strings.Cut(c, "=")
		v.pending[client][k] = value
	}
}

func (v *survivor) acknowledged(t *testing.T, client string, rev int64) {
	if rev != 0 && rev <= v.floor {
		t.Errorf("revision %d is used again: the store was at %d", rev, v.floor)
	}
	v.highest, v.acked = max(v.highest, rev), v.acked+1
	apply(v.there, v.pending[client])
	delete(v.pending, client)
}

// apply makes changes to what is there.
func apply(there, changes map[string]string) {
	for k, value := range changes {
		if there[k] = value; value == "-" {
			delete(there, k)
		}
	}
}

// found wants in an opened store everything that was acknowledged, nothing that
// nobody asked for, and of each change all or nothing. What was found counts as
// acknowledged.
func (v *survivor) found(t *testing.T, got map[string]string, rev int64) {
	t.Helper()
	for _, changes := range v.pending {
		// Clients have keys of their own, so this one's are as before or as after.
		after := maps.Clone(v.there)
		apply(after, changes)
		took := true
		for k := range changes {
			took = took && got[k] == after[k]
		}
		if took {
			v.there = after
		}
	}
	for k := range merged(got, v.there) {
		if got[k] != v.there[k] {
			t.Errorf("%s is %q, acknowledged was %q", k, got[k], v.there[k])
		}
	}
	if rev < v.highest || rev < v.floor {
		t.Errorf("the store is at %d, %d was acknowledged", rev, max(v.highest, v.floor))
	}
	v.floor, v.highest, v.pending = rev, 0, map[string]map[string]string{}
}

// look opens the store, closes it and checks its insides, too.
func (v *survivor) look(t *testing.T) {
	t.Helper()
	s, err := Open(v.path, Options{pace: fastPace})
	if err != nil {
		t.Fatal(err)
	}
	got, rev, err := readAll(s)
	if err != nil {
		t.Fatal(err)
	}
	v.found(t, got, rev)
	verify(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if t.Failed() {
		t.FailNow()
	}
}

func merged(a, b map[string]string) map[string]string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// readAll returns all keys and leases, and the revision.
func readAll(s *Store) (map[string]string, int64, error) {
	res, err := s.Read(context.Background(), Read{Range: everything()})
	if err != nil {
		return nil, 0, err
	}
	got := map[string]string{}
	for _, kv := range res.KVs {
		got[string(kv.Key)] = shortValue(kv.Value)
	}
	ids, _, err := s.Leases(context.Background())
	for _, id := range ids {
		got[fmt.Sprintf("lease/%d", id)] = "+"
	}
	return got, res.Revision, err
}
