package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	loadClients = 8
	loadRounds  = 12 // of a child that is not killed
	loadSteps   = 12 // of a client in one round
)

// childLoad prints what it finds, and lets clients change keys of their own in
// all ways until the process is killed or has done its rounds, with rests in
// between. Each client prints what it is about to change, and then the revision
// that it was told.
func childLoad(path string) error {
	if point, passes, ok := strings.Cut(os.Getenv(childFault), ":"); ok {
		if err := killAt(faultPoint(point), passes); err != nil {
			return err
		}
	}
	s, err := Open(path, Options{SweepSlice: 16, Ballast: true, pace: fastPace})
	if err != nil {
		return err
	}
	found, rev, err := readAll(s)
	if err != nil {
		return err
	}
	for k, value := range found {
		printLine("S %s=%s", k, value)
	}
	printLine("R %d", rev)
	clients := make([]*loadClient, loadClients)
	for i := range clients {
		clients[i] = &loadClient{s: s, id: i, has: map[string]bool{}}
	}
	for range loadRounds {
		var all sync.WaitGroup
		for _, c := range clients {
			all.Go(func() {
				for range loadSteps {
					c.step()
				}
			})
		}
		all.Wait()
		if err := s.flush(context.Background()); err != nil {
			return err
		}
		<-time.After(2 * fastPace.layerAge)
	}
	return s.Close()
}

// killAt ends the process, as kill -9 does, when a point was passed so often.
func killAt(point faultPoint, passes string) error {
	left, err := strconv.Atoi(passes)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	onFault = func(at faultPoint) {
		mu.Lock()
		defer mu.Unlock()
		if at != point {
			return
		}
		if left--; left < 0 {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	return nil
}

// loadClient is one goroutine of the load. Its leases have keys' names too, so
// that what it changes is always a list of name=value, "-" when it goes.
type loadClient struct {
	s    *Store
	id   int
	n    int
	has  map[string]bool // keys that are there, of this life
	hung int64           // the lease that exists; 0: none
}

func (c *loadClient) key(n int) string { return fmt.Sprintf("%d/%d", c.id, n) }

func (c *loadClient) leaseName(id int64) string { return fmt.Sprintf("lease/%d", id) }

// hungName is the key that hangs on the lease.
func (c *loadClient) hungName() string { return fmt.Sprintf("%d/hung/%d", c.id, c.hung) }

func (c *loadClient) step() {
	c.n++
	more := 0
	if c.n%11 == 0 { // longer than a page, and together than a segment
		more = 3000 + rand.IntN(30_000)
	}
	value := fmt.Sprintf("%d.%d.%d.%d", os.Getpid(), c.id, c.n, more)
	a, b := c.key(rand.IntN(10)), c.key(10+rand.IntN(10))
	switch n := rand.IntN(100); {
	case n < 45:
		c.txn(map[string]string{a: value}, 0)
	case n < 60:
		c.txn(map[string]string{a: value, b: value}, 0)
	case n < 75:
		c.txn(map[string]string{a: "-", b: value}, 0)
	case n < 85:
		c.txn(map[string]string{a: "-"}, 0)
	case n < 90 && c.hung == 0:
		c.grant()
	case n < 90:
		c.txn(map[string]string{c.hungName(): value}, c.hung)
	case n < 95 && c.hung != 0:
		c.revoke()
	default:
		c.compact()
	}
}

var loadOut sync.Mutex

func printLine(format string, args ...any) {
	loadOut.Lock()
	defer loadOut.Unlock()
	fmt.Printf(format+"\n", args...)
}

// intent prints what is going to change.
func (c *loadClient) intent(changes map[string]string) {
	line := fmt.Sprintf("I %d", c.id)
	for k, v := range changes {
		line += " " + k + "=" + v
	}
	printLine("%s", line)
}

// done prints what was acknowledged: the revision, 0 when none was made.
func (c *loadClient) done(rev int64, err error) {
	if err != nil {
		panic(err)
	}
	printLine("A %d %d", c.id, rev)
}

func (c *loadClient) txn(changes map[string]string, lease int64) {
	var ops []Op
	for k, v := range changes {
		if v == "-" {
			ops = append(ops, Op{Delete: &Range{Key: []byte(k)}})
			continue
		}
		ops = append(ops, Op{Put: &Put{Key: []byte(k), Value: longValue(v), Lease: lease}})
	}
	c.intent(changes)
	res, err := c.s.Txn(context.Background(), Txn{Then: ops})
	rev := int64(0)
	for i, op := range ops {
		if err == nil && (op.Put != nil || len(res.Results[i].Prev) > 0) {
			rev = res.Revision
		}
	}
	c.done(rev, err)
}

// longValue is a value as it is stored: with as many x as its last number says.
func longValue(v string) []byte {
	n, _ := strconv.Atoi(v[strings.LastIndexByte(v, '.')+1:])
	return []byte(v + strings.Repeat("x", n))
}

// shortValue takes off what longValue added.
func shortValue(b []byte) string {
	v := strings.TrimRight(string(b), "x")
	if string(longValue(v)) != string(b) {
		return "damaged " + v
	}
	return v
}

func (c *loadClient) grant() {
	id := rand.Int64N(1 << 40)
	c.intent(map[string]string{c.leaseName(id): "+"})
	_, err := c.s.Grant(context.Background(), id, 3600)
	c.hung = id
	c.done(0, err)
}

func (c *loadClient) revoke() {
	c.intent(map[string]string{c.leaseName(c.hung): "-", c.hungName(): "-"})
	_, err := c.s.Revoke(context.Background(), c.hung)
	c.hung = 0
	c.done(0, err)
}

func (c *loadClient) compact() {
	c.intent(nil)
	st, err := c.s.Stats(context.Background())
	if err == nil {
		_, err = c.s.Compact(context.Background(), st.Revision-rand.Int64N(30))
	}
	if errors.Is(err, ErrCompacted) {
		err = nil
	}
	c.done(0, err)
}

// TestKill kills a process under load again and again, at any moment.
func TestKill(t *testing.T) {
	cycles := 20
	if n, err := strconv.Atoi(os.Getenv("SUBLET_CRASH_CYCLES")); err == nil {
		cycles = n
	}
	v := newSurvivor(t)
	for range cycles {
		v.live(t, 1+rand.IntN(loadClients*loadRounds*loadSteps*2))
		if rand.IntN(3) == 0 {
			v.look(t)
		}
	}
	v.look(t)
	t.Logf("%d acknowledged writes in %d lives, 0 lost; revisions up to %d, none used twice", v.acked, cycles, v.floor)
}

// TestFaults ends a process at each of the named points, the first time that it
// comes there and later, and goes on with what is left.
func TestFaults(t *testing.T) {
	loops := 4
	if n, err := strconv.Atoi(os.Getenv("SUBLET_CRASH_CYCLES")); err == nil {
		loops = max(loops, n/50)
	}
	for _, point := range faultPoints {
		t.Run(string(point), func(t *testing.T) {
			t.Parallel()
			v, reached := newSurvivor(t), 0
			for i := range loops {
				if i > 0 {
					v.live(t, 100+200*i) // leaves a log to recover
				}
				if v.live(t, 0, fmt.Sprintf("%s=%s:%d", childFault, point, i*i)) {
					reached++
				}
				v.look(t)
			}
			if reached == 0 {
				t.Error("the load never comes here")
			}
		})
	}
}
