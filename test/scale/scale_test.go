package scale_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/api/v1alpha1"
	"sublet.dev/test/machine"
)

// renewal is how old a cell is at least when another process takes its place because all
// its tenants sleep.
const renewal = time.Minute

func TestMain(m *testing.M) {
	machine.Flags = []string{"--renew-cells=" + renewal.String()}
	os.Exit(machine.Main(m))
}

const (
	// atOnce are made, and woken, at a time; mostAwake may be awake before another is.
	atOnce, mostAwake = 8, 40
	// soon is when a tenant of the test falls asleep.
	soon = 3 * time.Second
)

// The plans of the tenants: in shared cells, and in cells of their own.
const (
	shared = "scale-shared"
	alone  = "scale-alone"
)

func value(name string, v float64, unit string) {
	fmt.Printf("value scale/%s %.4g %s\n", name, v, unit)
}

// progress says now and then how far a phase is; begun is when it began.
func progress(what string, done, of int, begun time.Time) {
	if done%max(of/20, 1) == 0 || done == of {
		fmt.Printf("%s %d of %d after %s\n", what, done, of, time.Since(begun).Round(time.Second))
	}
}

// TestTenants makes tenants, has all of them asleep, wakes each, and deletes all.
func TestTenants(t *testing.T) {
	s := os.Getenv("SUBLET_SCALE_TENANTS")
	if s == "" {
		t.Skip("only `make scale` runs this, with SUBLET_SCALE_TENANTS")
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	machine.Running(t)
	f := watch(t)
	f.plans()
	turn(f, 2) // what is done once
	before, had := uses(t), traces(t)
	turn(f, n)
	given(t, before)
	report(t, before)
	left(t, had)
}

// plans makes the plans of the tenants, and removes them at the end.
func (f *fleet) plans() {
	f.t.Helper()
	for _, name := range []string{shared, alone} {
		p := &v1alpha1.Plan{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.PlanSpec{
			IdleAfter: &metav1.Duration{Duration: soon}, OwnCell: name == alone,
		}}
		if err := f.api.Create(f.t.Context(), p); err != nil {
			f.t.Fatal(err)
		}
	}
}

// turn is the life of n tenants.
func turn(f *fleet, n int) {
	f.t.Helper()
	kubeconfigs := f.addAll(n)
	f.must(f.until(f.t.Context(), "all sleep", func() bool { all, asleep := f.count(); return all == n && asleep == n }))
	f.weigh("asleep", n)
	if n > 2 { // there are others to compare with
		f.renewed(n)
	}
	if out := machine.Sublet(f.t, "list"); strings.Count(out, "Asleep") != n {
		f.t.Errorf("sublet list: %s", out)
	}
	f.wakeAll(kubeconfigs)
	f.must(f.until(f.t.Context(), "all sleep again", func() bool { _, asleep := f.count(); return asleep == n }))
	f.deleteAll(kubeconfigs)
}

func (f *fleet) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// addAll makes n tenants, a few of them in cells of their own.
func (f *fleet) addAll(n int) map[string][]byte {
	f.t.Helper()
	begun := time.Now()
	kubeconfigs, took := make([][]byte, n), make([]float64, n)
	group, ctx := errgroup.WithContext(f.t.Context())
	group.SetLimit(atOnce)
	for i := range n {
		progress("made", i, n, begun)
		f.must(f.until(ctx, "some sleep", func() bool { all, asleep := f.count(); return all-asleep < mostAwake || ctx.Err() != nil }))
		group.Go(func() error {
			plan := shared
			if i == 1 || i == 7 {
				plan = alone
			}
			kubeconfig, d, err := f.add(ctx, tenantName(i), plan)
			kubeconfigs[i], took[i] = kubeconfig, d.Seconds()*1000
			if err != nil {
				return fmt.Errorf("tenant %d: %w", i, err)
			}
			return nil
		})
	}
	f.must(group.Wait())
	all := map[string][]byte{}
	for i, k := range kubeconfigs {
		all[tenantName(i)] = k
	}
	quantiles("create", took)
	value("create-all", time.Since(begun).Seconds(), "s")
	return all
}

func tenantName(i int) string { return fmt.Sprintf("t-%04d", i) }

// weigh prints what the processes have while n tenants sleep, when they have given
// back what they will, and returns what each has.
func (f *fleet) weigh(when string, n int) map[string]usage {
	f.t.Helper()
	running, all := cells(f.t), map[string]usage{}
	settle(f.t, append([]string{"server"}, running...))
	var sum usage
	for _, name := range append(running, "server") {
		u := use(f.t, name)
		all[name] = u
		sum.anonymous, sum.heap = sum.anonymous+u.anonymous, sum.heap+u.heap
		sum.files, sum.goroutines = sum.files+u.files, sum.goroutines+u.goroutines
		f.t.Logf("%d %s: %s: %v", n, when, name, u)
	}
	value(when+"-cells", float64(len(running)), "processes")
	value(when+"-anonymous", sum.anonymous, "MiB")
	value(when+"-reachable", sum.heap, "MiB")
	value(when+"-goroutines", float64(sum.goroutines), "")
	value(when+"-files", float64(sum.files), "")
	return all
}

// wakeAll wakes the tenants in random order, by a request each.
func (f *fleet) wakeAll(kubeconfigs map[string][]byte) {
	f.t.Helper()
	names := slices.Collect(maps.Keys(kubeconfigs))
	rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	begun, took := time.Now(), make([]float64, len(names))
	group, ctx := errgroup.WithContext(f.t.Context())
	group.SetLimit(atOnce)
	for i, name := range names {
		progress("woken", i, len(names), begun)
		f.must(f.until(ctx, "some sleep", func() bool { all, asleep := f.count(); return all-asleep < mostAwake || ctx.Err() != nil }))
		group.Go(func() error {
			start := time.Now()
			err := read(ctx, name, kubeconfigs[name])
			took[i] = time.Since(start).Seconds() * 1000
			if err != nil {
				return fmt.Errorf("wake %s: %w\n%s", name, err, logged(name))
			}
			return nil
		})
	}
	f.must(group.Wait())
	quantiles("wake", took)
	value("wake-all", time.Since(begun).Seconds(), "s")
}

// deleteAll deletes the tenants and waits until they are gone.
func (f *fleet) deleteAll(kubeconfigs map[string][]byte) {
	f.t.Helper()
	begun := time.Now()
	for name := range kubeconfigs {
		f.must(f.api.Delete(f.t.Context(), &v1alpha1.VirtualCluster{ObjectMeta: metav1.ObjectMeta{Name: name}}))
	}
	last := len(kubeconfigs)
	f.must(f.until(f.t.Context(), "all are gone", func() bool {
		all, _ := f.count()
		for ; last > all; last-- {
			progress("gone", len(kubeconfigs)-last+1, len(kubeconfigs), begun)
		}
		return all == 0
	}))
	value("delete-all", time.Since(begun).Seconds(), "s")
}

func quantiles(name string, took []float64) {
	slices.Sort(took)
	value(name+"-p50", took[len(took)/2], "ms")
	value(name+"-p99", took[len(took)*99/100], "ms")
}
