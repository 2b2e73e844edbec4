package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"go.uber.org/zap"

	"sublet.dev/tenant-apiserver/etcdclient"
	"sublet.dev/tenant-apiserver/store"
)

// clientRole is the argument that makes this program the client of a task.
const clientRole = "client"

// task is what a client is told to do.
type task struct {
	Do string // a key of duties
	// Target is a store's file, or a server's address.
	Target string
	// Server is the process id of the server; 0: the store is in the client.
	Server        int
	Size, Writers int
	Seconds       float64
	Objects       int    // to make, where the duty is to make some
	Gets          bool   // after the writes
	MayFail       bool   // operations that fail are counted, and are no failure of the run
	Dir           string // a folder on the disk that is measured
	Profile       string // file for a CPU profile; empty: none
}

// phase is the outcome of a part of a task.
type phase struct {
	Name        string
	Ops, Failed int
	Seconds     float64
	P50, P99    time.Duration
	CPU         float64 // seconds, client and server
	Value       float64 // what the phase is about, when it is not operations
	Unit        string  // of Value
}

func (p phase) String() string {
	if p.Unit != "" {
		return fmt.Sprintf("%.3f %s", p.Value, p.Unit)
	}
	return fmt.Sprintf("%8.0f/s  p50 %s  p99 %s  cpu %.1f us, %d failed", p.rate(), ms(p.P50), ms(p.P99), p.cpuPerOp(), p.Failed)
}

func (p phase) rate() float64 { return float64(p.Ops) / p.Seconds }

// cpuPerOp is in microseconds.
func (p phase) cpuPerOp() float64 { return p.CPU / float64(p.Ops) * 1e6 }

func ms(d time.Duration) string { return fmt.Sprintf("%.3f ms", float64(d)/1e6) }

// duties are the tasks of a client.
var duties = map[string]func(context.Context, task) ([]phase, error){
	"writes": writes, "sustained": sustained, "lists": lists, "watch": watch,
	"fill": fill, "fillStores": fillStores, "idle": idle, "open": open,
}

// client does the task that it reads, and writes the phases.
func client(ctx context.Context, in io.Reader, out io.Writer) error {
	var t task
	if err := json.NewDecoder(in).Decode(&t); err != nil {
		return err
	}
	if t.Profile != "" {
		f, err := os.Create(t.Profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	phases, err := duties[t.Do](ctx, t)
	if err != nil {
		return fmt.Errorf("%s: %w", t.Do, err)
	}
	return json.NewEncoder(out).Encode(phases)
}

// connect opens the store, or dials the server. closing ends both.
func (t task) connect() (c *kubernetes.Client, closing func() error, err error) {
	if t.Server != 0 {
		c, err := kubernetes.New(clientv3.Config{Endpoints: []string{t.Target}, DialTimeout: 20 * time.Second, Logger: zap.NewNop()})
		if err != nil {
			return nil, nil, err
		}
		return c, c.Close, nil
	}
	s, err := store.Open(t.Target, store.Options{})
	if err != nil {
		return nil, nil, err
	}
	c = etcdclient.New(s)
	return c, func() error { c.Close(); return s.Close() }, nil
}

// cpu is what client and server have used, in seconds.
func (t task) cpu() (float64, error) {
	var self syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &self); err != nil {
		return 0, err
	}
	used := time.Duration(self.Utime.Nano() + self.Stime.Nano()).Seconds()
	if t.Server == 0 {
		return used, nil
	}
	server, err := cpuOf(t.Server)
	return used + server, err
}

// cpuOf is the CPU time of a process with all its threads, in seconds.
func cpuOf(pid int) (float64, error) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return 0, err
	}
	stat, err := p.Stat()
	return stat.CPUTime(), err
}

// flush is how long the disk takes for a small write, as this process sees it:
// it shows whether flushes are slowed down.
func flush(dir string) (phase, error) {
	f, err := os.Create(filepath.Join(dir, "flush"))
	if err != nil {
		return phase{}, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var took []time.Duration
	block := make([]byte, 4096)
	for range 50 {
		if _, err := f.Write(block); err != nil {
			return phase{}, err
		}
		began := time.Now()
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return phase{}, err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return phase{Name: "flush", Value: float64(took[len(took)/2]) / 1e6, Unit: "ms"}, nil
}
