package scale_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"sublet.dev/test/machine"
)

// usage is what a process has.
type usage struct {
	goroutines, files int
	heap, anonymous   float64 // MiB: what is reachable, and what the kernel gave
}

func (u usage) String() string {
	return fmt.Sprintf("%d goroutines, %d files, %.1f MiB reachable, %.1f MiB anonymous", u.goroutines, u.files, u.heap, u.anonymous)
}

// use returns what a process has. Only those with a socket say what their Go runtime
// has: the server and the cells.
func use(t *testing.T, process string) usage {
	t.Helper()
	var u usage
	if profiles := (profiler{t, process}); process != "agent" && process != "up" {
		first, _, _ := strings.Cut(profiles.get("goroutine?debug=1"), "\n")
		u.goroutines = int(number(t, strings.TrimPrefix(first, "goroutine profile: total ")))
		_, rest, _ := strings.Cut(profiles.get("heap?debug=1&gc=1"), "# HeapAlloc = ")
		alloc, _, _ := strings.Cut(rest, "\n")
		u.heap = number(t, alloc) / (1 << 20)
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid(t, process)))
	if err != nil {
		t.Fatal(err)
	}
	u.files, u.anonymous = len(files), anonymous(t, pid(t, process))
	return u
}

// pid returns a process's id. A cell that is just being replaced is waited for.
func pid(t *testing.T, process string) (id int) {
	t.Helper()
	if process == "up" {
		return machine.UpPID()
	}
	machine.Eventually(t, process+" runs", func() (err error) {
		if id, err = machine.ReadPID(process + ".pid"); err == nil {
			_, err = os.Stat(fmt.Sprintf("/proc/%d", id))
		}
		return err
	})
	return id
}

func number(t *testing.T, s string) float64 {
	t.Helper()
	n, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// profiler asks a process for Go's profiles.
type profiler struct {
	t       *testing.T
	process string
}

// get returns a profile. A cell without tenants that are awake may just be replaced by
// a new process, which is waited for.
func (p profiler) get(profile string) (said string) {
	p.t.Helper()
	machine.Eventually(p.t, "profile "+profile+" of "+p.process, func() (err error) {
		said, err = p.try(profile)
		return err
	})
	return said
}

func (p profiler) try(profile string) (string, error) {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(machine.DataDir(), "run", p.process+".sock"))
	}}
	r, err := (&http.Client{Transport: transport}).Get("http://process/debug/pprof/" + profile)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	said, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", r.Status, said)
	}
	return string(said), err
}

// anonymous returns a process's anonymous memory in MiB (proc(5), smaps_rollup).
func anonymous(t *testing.T, pid int) float64 {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if value, ok := strings.CutPrefix(s.Text(), "Anonymous:"); ok {
			return number(t, strings.Fields(value)[0]) / 1024
		}
	}
	t.Fatalf("process %d has no line Anonymous", pid)
	return 0
}

// logged returns what Sublet's processes have logged about a tenant last.
func logged(tenant string) string {
	files, _ := filepath.Glob(filepath.Join(machine.DataDir(), "log/*.log")) // the pattern is valid
	var last []string
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			last = append(last, err.Error())
		}
		var of []string
		for line := range strings.Lines(string(data)) {
			if strings.Contains(line, tenant) || strings.Contains(line, "cell ") {
				of = append(of, filepath.Base(file)+": "+strings.TrimSpace(line))
			}
		}
		last = append(last, of[max(0, len(of)-15):]...)
	}
	return strings.Join(last, "\n")
}

// cells returns the names of the cells that run.
func cells(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(machine.DataDir(), "run", "cell-*.pid"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(f), ".pid"))
	}
	return names
}
