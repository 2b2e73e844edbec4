package scale_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"sublet.dev/test/machine"
)

// What a process may have more than before: what it does now and then without tenants,
// and what its runtime keeps for the next time.
const (
	moreGoroutines = 40
	moreFiles      = 16
	moreHeap       = 24.0 // MiB
	// The server's also differs with what its API is doing when it is looked at.
	moreServerHeap = 48.0 // MiB
	// What a tenant that sleeps may cost, and what a cell may have more besides: of what
	// is reachable, and of anonymous memory. By that new processes, too, differ, as their
	// garbage was collected while they warmed up: by 23 MiB at a load of 17.
	sleeperMemory, cellHeap, cellMemory = 100.0 / 1024, 4.0, 10.0 // MiB
)

// lasting are the processes that outlive tenants.
var lasting = []string{"up", "server", "agent", "cell-0"}

// uses returns what each process has that outlives tenants, at rest.
func uses(t *testing.T) map[string]usage {
	t.Helper()
	settle(t, lasting)
	all := map[string]usage{}
	for _, process := range lasting {
		all[process] = use(t, process)
	}
	return all
}

// settle waits until the memory of processes changes little any more.
func settle(t *testing.T, processes []string) {
	t.Helper()
	const little, while = 4.0, 20 * time.Second // MiB
	last := math.Inf(1)
	err := wait.PollUntilContextTimeout(t.Context(), while, 5*time.Minute, true, func(context.Context) (bool, error) {
		now := 0.0
		for _, p := range processes {
			now += anonymous(t, pid(t, p))
		}
		before := last
		last = now
		return math.Abs(before-now) < little, nil
	})
	if err != nil {
		t.Logf("the memory of %v does not come to rest: %v", processes, err)
	}
}

// given waits until the processes have given back what they took.
func given(t *testing.T, before map[string]usage) {
	t.Helper()
	machine.Eventually(t, "goroutines, files and memory are given back", func() error {
		for process, was := range before {
			now, heap := use(t, process), moreHeap
			if process == "server" {
				heap = moreServerHeap
			}
			if now.goroutines > was.goroutines+moreGoroutines || now.files > was.files+moreFiles || now.heap > was.heap+heap {
				return fmt.Errorf("%s had %v, and has %v", process, was, now)
			}
		}
		return nil
	})
	if now := cells(t); !slices.Equal(now, []string{"cell-0"}) {
		t.Errorf("the cells are %s", now)
	}
}

// report prints what the processes had before and have now.
func report(t *testing.T, before map[string]usage) {
	t.Helper()
	after := uses(t)
	for _, process := range lasting {
		was, is := before[process], after[process]
		t.Logf("%s had %v, and has %v", process, was, is)
		value("before-anonymous/"+process, was.anonymous, "MiB")
		value("after-anonymous/"+process, is.anonymous, "MiB")
		if was.goroutines > 0 {
			value("before-goroutines/"+process, float64(was.goroutines), "")
			value("after-goroutines/"+process, float64(is.goroutines), "")
			value("before-reachable/"+process, was.heap, "MiB")
			value("after-reachable/"+process, is.heap, "MiB")
		}
	}
}

// traces lists what a tenant could leave: host objects, files, addresses, rules. The
// locks of cells stay: whoever removed one could take it from somebody who has just
// opened it. So do chains without rules: kube-proxy removes them when it has something
// else to do.
func traces(t *testing.T) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	add := func(lines string) {
		for line := range strings.Lines(lines) {
			all[line] = true
		}
	}
	add(machine.Host(t, "get", "virtualclusters,credentials,namespaces,clusterroles,clusterrolebindings,services,endpointslices,ipaddresses,"+
		"serviceaccounts,rolebindings,resourcequotas,networkpolicies,secrets,configmaps", "-A", "-o", "jsonpath={range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name}{\"\\n\"}{end}"))
	for _, script := range []string{
		`find "$DATA/server" "$DATA/run" "$DATA/agent/podnet" -mindepth 1 -not -path "*/server/host.db*" -not -name "cell-*.lock"`,
		`nft -j list ruleset | grep -o '"chain": "[^"]*"'`, `ss -Hltn | awk '{print $4}'`,
	} {
		cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "sh", "-ec", script)
		cmd.Env = append(os.Environ(), "DATA="+machine.DataDir())
		found, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", script, err, found)
		}
		add(string(found))
	}
	return all
}

// left waits until there is nothing of tenants that was not there before.
func left(t *testing.T, before map[string]bool) {
	t.Helper()
	machine.Eventually(t, "nothing is left of the tenants", func() error {
		now := traces(t)
		maps.DeleteFunc(now, func(line string, _ bool) bool { return before[line] })
		if len(now) > 0 {
			return fmt.Errorf("%q", slices.Sorted(maps.Keys(now)))
		}
		return nil
	})
}
