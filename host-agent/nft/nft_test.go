package nft_test

import (
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sublet.dev/host-agent/nft"
)

// isolated runs a test in a network namespace of its own, which ends with it.
func isolated(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("make a network namespace: %v", err)
			return
		}
		test(t)
	}()
	<-done
}

func table() nft.Table {
	return nft.Table{
		Name:     "test",
		Counters: []string{"seen"},
		Sets: []nft.Set{
			{Name: "ranges", Type: "ipv4_addr", Interval: true, Elements: []string{"10.0.0.0/8", "192.0.2.1"}},
			{Name: "pairs", Type: "ifname . ipv4_addr", Elements: []string{"veth0 . 10.0.0.1", "veth1 . 10.0.0.2"}},
		},
		Maps: []nft.Map{{Name: "ways", Type: "ifname : verdict", Elements: map[string]string{"veth0": "jump end", "veth1": "drop"}}},
		Chains: []nft.Chain{
			{Name: "start", Hook: &nft.Hook{Type: "filter", Hook: "output", Priority: "filter"}, Rules: []string{
				`oifname "lo" counter name "seen" accept`, "oifname vmap @ways", "ip daddr @ranges drop"}},
			{Name: "end", Rules: []string{"accept"}},
		},
	}
}

// open returns the table in the kernel after an Apply of each of tables.
func open(t *testing.T, tables ...nft.Table) *nft.Kernel {
	t.Helper()
	k, err := nft.Open("test")
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		if err := k.Apply(t.Context(), table); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

func want(t *testing.T, k *nft.Kernel, table nft.Table) {
	t.Helper()
	read, err := k.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := read.Lines(), table.Lines(); !slices.Equal(got, want) {
		t.Errorf("the kernel has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestApply(t *testing.T) {
	less := table()
	less.Maps = nil
	less.Sets = less.Sets[1:]
	less.Chains = []nft.Chain{{Name: "start", Hook: less.Chains[0].Hook, Rules: []string{"oifname . ip saddr @pairs accept"}}}
	retyped := table()
	retyped.Sets[1] = nft.Set{Name: "pairs", Type: "ipv4_addr", Elements: []string{"10.0.0.1"}}
	rehooked := table()
	rehooked.Chains[0].Hook = &nft.Hook{Type: "filter", Hook: "input", Priority: "filter"}
	rehooked.Chains[0].Rules = []string{"iifname vmap @ways"}
	for name, tables := range map[string][]nft.Table{
		"new":               {table()},
		"again":             {table(), table()},
		"less":              {table(), less},
		"more":              {less, table()},
		"another type":      {table(), retyped},
		"another hook":      {table(), rehooked},
		"nothing":           {table(), {Name: "test"}},
		"and back from one": {retyped, table()},
	} {
		t.Run(name, func(t *testing.T) {
			isolated(t, func(t *testing.T) { want(t, open(t, tables...), tables[len(tables)-1]) })
		})
	}
}

// A table that the kernel refuses changes nothing.
func TestApplyIsAllOrNothing(t *testing.T) {
	isolated(t, func(t *testing.T) {
		k := open(t, table())
		bad := table()
		bad.Chains[1].Rules = []string{"jump nowhere"}
		if err := k.Apply(t.Context(), bad); err == nil {
			t.Error("a jump to a chain that does not exist was accepted")
		}
		want(t, k, table())
	})
}

func TestCountersGoOn(t *testing.T) {
	isolated(t, func(t *testing.T) {
		k := open(t, table())
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Close(fd) }()
		if err := unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			t.Fatal(err)
		}
		count := func() uint64 {
			counters, err := k.Counters(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return counters["seen"]
		}
		before := count()
		if before == 0 {
			t.Fatal("nothing was counted")
		}
		more := table()
		more.Sets[0].Elements = append(more.Sets[0].Elements, "198.51.100.0/24")
		if err := k.Apply(t.Context(), more); err != nil {
			t.Fatal(err)
		}
		if after := count(); after < before {
			t.Errorf("the counter went from %d to %d over a change", before, after)
		}
	})
}

func TestDelete(t *testing.T) {
	isolated(t, func(t *testing.T) {
		k := open(t, table())
		for range 2 {
			if err := k.Delete(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := k.Read(t.Context()); err == nil {
			t.Error("the table is still there")
		}
	})
}

func TestScriptIsWhatNftTakes(t *testing.T) {
	isolated(t, func(t *testing.T) {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(table().Script())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		want(t, open(t), table())
	})
}
