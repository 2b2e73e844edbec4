package store

import (
	"context"
	"crypto/rand"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// BenchmarkCreate writes new keys as upstream's storage does, with a comparison,
// from some writers at once. Beside the time of one it tells writes per second,
// the slowest of a hundred, and the processor time of one.
func BenchmarkCreate(b *testing.B) {
	for _, size := range []int{1 << 10, 10 << 10} {
		for _, writers := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("%dKiB/%dw", size>>10, writers), func(b *testing.B) { benchCreate(b, size, writers) })
		}
	}
}

func benchCreate(b *testing.B, size, writers int) {
	s, err := Open(filepath.Join(b.TempDir(), "store.db"), Options{})
	if err != nil {
		b.Fatal(err)
	}
	value := make([]byte, size)
	rand.Read(value)
	took := make([]time.Duration, b.N)
	var next atomic.Int64
	var all sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	cpu, begin := cpuTime(b), time.Now()
	for range writers {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(b.N); i = next.Add(1) - 1 {
				key := fmt.Appendf(nil, "/registry/pods/namespace-%d/pod-%x", i%50, uint64(i)*0x9e3779b97f4a7c15)
				at := time.Now()
				res, err := s.Txn(context.Background(), Txn{
					If:   []Compare{{Key: key, Target: ModRevision}},
					Then: []Op{{Put: &Put{Key: key, Value: value}}},
				})
				took[i] = time.Since(at)
				if err != nil || !res.Succeeded {
					b.Errorf("%v %v", res, err)
					return
				}
			}
		})
	}
	all.Wait()
	elapsed, used := time.Since(begin), cpuTime(b)-cpu
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(b.N)/elapsed.Seconds(), "writes/s")
	b.ReportMetric(float64(took[b.N*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(float64(took[b.N-1].Microseconds()), "max-µs")
	b.ReportMetric(float64(used.Microseconds())/float64(b.N), "cpu-µs/op")
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}

// cpuTime is what the process has used.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
