package cell_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sublet.dev/tenant-apiserver/cell"
)

// realEtcd starts an etcd that ends with the test and returns its URL.
func realEtcd(t *testing.T) string {
	t.Helper()
	program, err := filepath.Abs("../../bin/peers/etcd")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); err != nil {
		t.Skip("there is no etcd to test with: run `make peers`")
	}
	host := fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254)) // where nobody else listens or connects from
	var at [2]string
	for i := range at {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Fatal(err)
		}
		at[i] = "http://" + l.Addr().String()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, "--name", "m", "--data-dir", t.TempDir(), "--log-level", "error",
		"--listen-client-urls", at[0], "--advertise-client-urls", at[0],
		"--listen-peer-urls", at[1], "--initial-advertise-peer-urls", at[1], "--initial-cluster", "m="+at[1])
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return at[0]
}

// A tenant is moved from its file to an etcd and back. Who watched all the time sees
// nothing but what was written, and never a revision go back.
func TestMigrate(t *testing.T) {
	t.Parallel()
	url := realEtcd(t)
	_, client, dir := start(t, quiet)
	inFile := tenantOf("uid-a", "a")
	inEtcd := inFile
	inEtcd.Etcd = cell.EtcdStore{Endpoints: url, Prefix: "/sublet/a/"}
	put(t, client, inFile)
	k := through(t, dir, inFile)
	write(t, k, "first", "in the file")
	w := watch(t, k)
	w.await(t, map[string]string{"first": "in the file"})

	move := func(to cell.Tenant) cell.Moved {
		t.Helper()
		m, err := client.MigrateStore(t.Context(), to.ID, to.Etcd)
		if err != nil || m.Already || m.Keys < 100 || m.Revision <= m.Before {
			t.Fatalf("%+v, %v", m, err)
		}
		// Until somebody says where it is now, it does not run where it was.
		s := await(t, client, to.ID, func(s cell.Status) bool { return s.Phase == cell.Failed })
		if s.Reason != cell.ReasonStoreMissing {
			t.Errorf("after the move: %+v", s)
		}
		if again, err := client.MigrateStore(t.Context(), to.ID, to.Etcd); err != nil || !again.Already {
			t.Errorf("a second time: %+v, %v", again, err)
		}
		put(t, client, to)
		return m
	}
	if m := move(inEtcd); m.Kept == "" {
		t.Errorf("%+v", m)
	}
	w.await(t, map[string]string{"first": "in the file"})
	write(t, k, "second", "in the etcd")
	w.await(t, map[string]string{"first": "in the file", "second": "in the etcd"})
	if again, err := client.MigrateStore(t.Context(), inEtcd.ID, inEtcd.Etcd); err != nil || !again.Already {
		t.Errorf("moved where it is: %+v, %v", again, err)
	}
	if _, err := client.StoreStat(t.Context(), inEtcd.ID); err == nil {
		t.Error("a tenant in an etcd has a file to look into")
	}

	if m := move(inFile); m.Kept != "" || m.Revision > m.Before+1_000_000 { // within reach of an etcd
		t.Errorf("%+v", m)
	}
	write(t, k, "third", "in the file again")
	w.await(t, map[string]string{"first": "in the file", "second": "in the etcd", "third": "in the file again"})
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.back) > 0 {
		t.Errorf("time went back: %q", w.back)
	}
}

// A move that cannot be made leaves the tenant as it was.
func TestMigrateRefused(t *testing.T) {
	t.Parallel()
	url := realEtcd(t)
	_, client, dir := start(t, quiet)
	a := tenantOf("uid-a", "a")
	put(t, client, a)
	taken := tenantOf("uid-b", "b")
	taken.Etcd = cell.EtcdStore{Endpoints: url, Prefix: "/taken/"}
	put(t, client, taken)
	for name, c := range map[string]struct {
		to   cell.EtcdStore
		code int
	}{
		"nobody answers":   {cell.EtcdStore{Endpoints: "http://127.0.0.1:1", Prefix: "/x/"}, 500},
		"another's prefix": {taken.Etcd, 409},
	} {
		_, err := client.MigrateStore(t.Context(), a.ID, c.to)
		var refused *cell.RefusedError
		if !errors.As(err, &refused) || refused.Code != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	await(t, client, a.ID, func(s cell.Status) bool { return s.Phase == cell.Ready })
	if _, err := through(t, dir, a).CoreV1().Namespaces().Get(t.Context(), "default", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
}
