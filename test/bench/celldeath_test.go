package bench_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"sublet.dev/test/machine"
)

// Who is in a cell that dies.
const (
	hotTenants    = 10
	asleepTenants = 90
)

// BenchmarkCellDeath measures, from kill -9 of a cell with tenants that run and tenants
// that sleep, until each of those that ran answers again through the front door, with
// what it had. Those that slept have to sleep on.
func BenchmarkCellDeath(b *testing.B) {
	machine.Running(b)
	names := inhabitants(b)
	defer removeAll(b, names)
	hot := map[string]kubernetes.Interface{}
	for _, name := range names[:hotTenants] {
		file := filepath.Join(b.TempDir(), name)
		if err := os.WriteFile(file, []byte(machine.Sublet(b, "kubeconfig", name)), 0o600); err != nil {
			b.Fatal(err)
		}
		k, leave := guest(b, file)
		defer leave()
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "mine"}, Data: map[string]string{"tenant": name}}
		if _, err := k.CoreV1().ConfigMaps("default").Create(context.Background(), m, metav1.CreateOptions{}); err != nil {
			b.Fatal(err)
		}
		hot[name] = k
	}
	var each, last, cpu []float64
	for b.Loop() {
		asleep(b, asleepTenants)
		took := cellDeath(b, hot)
		each, last, cpu = append(each, took...), append(last, slices.Max(took)), append(cpu, spent(b, machine.PidOf(b, machine.CellPID)))
		asleep(b, asleepTenants)
	}
	slices.Sort(each)
	slices.Sort(last)
	value("cell-death/back-p50", each[len(each)/2], "ms")
	value("cell-death/back", last[len(last)/2], "ms") // of the last tenant, in the median round
	value("cell-death/back-max", last[len(last)-1], "ms")
	slices.Sort(cpu)
	value("cell-death/cell-cpu", cpu[len(cpu)/2], "ms") // until then; what other work on the machine changes little
	b.ReportMetric(last[len(last)/2], "ms/cell-death")
}

// cellDeath kills the cell and returns how long it took each tenant to answer, in
// milliseconds.
func cellDeath(b *testing.B, hot map[string]kubernetes.Interface) []float64 {
	b.Helper()
	took, group := make(chan float64, len(hot)), errgroup.Group{}
	start := time.Now()
	if err := syscall.Kill(machine.PidOf(b, machine.CellPID), syscall.SIGKILL); err != nil {
		b.Fatal(err)
	}
	for name, k := range hot {
		group.Go(func() error {
			for {
				m, err := k.CoreV1().ConfigMaps("default").Get(b.Context(), "mine", metav1.GetOptions{})
				switch {
				case err == nil && m.Data["tenant"] != name:
					return fmt.Errorf("%s has what is %s's", name, m.Data["tenant"])
				case err == nil:
					took <- time.Since(start).Seconds() * 1000
					return nil
				case b.Context().Err() != nil:
					return err
				}
				// The connection was cut, or there is none yet: as clients do.
			}
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
	close(took)
	var all []float64
	for d := range took {
		all = append(all, d)
	}
	return all
}

// spent returns the processor time of a process, in milliseconds (proc(5), stat).
func spent(b *testing.B, pid int) float64 {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(after)
	var user, system, ticks float64 = 0, 0, 100 // of a second: USER_HZ
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
		b.Fatal(err)
	}
	return (user + system) / ticks * 1000
}

// inhabitants makes the tenants; those after hotTenants sleep.
func inhabitants(b *testing.B) (names []string) {
	b.Helper()
	var group errgroup.Group
	group.SetLimit(4)
	for i := range hotTenants + asleepTenants {
		name := fmt.Sprintf("inhabitant-%d", i)
		names = append(names, name)
		group.Go(func() error {
			if out, err := machine.Command("create", name, "--wait").CombinedOutput(); err != nil {
				return fmt.Errorf("create %s: %w: %s", name, err, out)
			}
			if i < hotTenants {
				return nil
			}
			if out, err := machine.Command("sleep", name).CombinedOutput(); err != nil {
				return fmt.Errorf("sleep %s: %w: %s", name, err, out)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
	return names
}

func removeAll(b *testing.B, names []string) {
	b.Helper()
	for _, name := range names {
		machine.Sublet(b, "delete", name)
	}
	machine.Eventually(b, "the tenants are gone", func() error {
		if out := machine.Sublet(b, "list"); strings.Contains(out, "inhabitant-") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
}

// asleep waits until so many tenants sleep.
func asleep(b *testing.B, n int) {
	b.Helper()
	machine.Eventually(b, "tenants sleep", func() error {
		if out := machine.Sublet(b, "list"); strings.Count(out, "Asleep") != n {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
}
