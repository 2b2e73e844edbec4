package cell_test

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sublet.dev/tenant-apiserver/cell"
	"sublet.dev/tenant-apiserver/storetool"
)

// flip changes a bit of a stored value, wherever it is in a tenant's file.
func flip(t *testing.T, client *cell.Client, tn cell.Tenant, path, key string) {
	t.Helper()
	var value []byte
	err := client.DumpStore(t.Context(), tn.ID, key, true, func(k storetool.Key) error { value = k.Value; return nil })
	if err != nil || len(value) < 64 {
		t.Fatalf("%d bytes, %v", len(value), err)
	}
	part := value[len(value)-64:]
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for n := 0; n == 0; { // it comes from the log into the file after some seconds
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; ; n++ {
			i := bytes.Index(data[at:], part)
			if i < 0 {
				break
			}
			at += i + 1
			if _, err := f.WriteAt([]byte{part[0] ^ 1}, int64(at-1)); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("%s is not in the file", key)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Damage on the disk below a running tenant, in what nobody reads, is found. That
// tenant fails alone, says why, and comes back with a backup.
func TestDamageWhileRunning(t *testing.T) {
	t.Parallel()
	_, client, dir := startWith(t, quiet, func(c *cell.Config) { c.CheckEvery = 10 * time.Millisecond })
	a, b := tenantOf("uid-a", "a"), tenantOf("uid-b", "b")
	b.ServiceCIDR, b.InCluster = netip.MustParsePrefix("10.96.8.0/22"), netip.MustParseAddrPort("192.0.2.1:20002")
	put(t, client, a)
	neighbour := put(t, client, b)
	write(t, through(t, dir, a), "victim", "a value that is long enough to be found again in the file of the tenant")
	var data bytes.Buffer
	if err := client.BackupStore(t.Context(), a.ID, "a", "test", &data); err != nil {
		t.Fatal(err)
	}

	flip(t, client, a, filepath.Join(dir, "uid-a", "store.db"), "/registry/configmaps/default/victim")
	s := await(t, client, a.ID, func(s cell.Status) bool { return s.Phase == cell.Failed })
	if s.Reason != cell.ReasonStoreCorrupt {
		t.Errorf("%+v", s)
	}
	t.Log(s.Message)
	if now := await(t, client, b.ID, func(cell.Status) bool { return true }); now != neighbour {
		t.Errorf("the neighbour was %+v and is %+v", neighbour, now)
	}
	write(t, through(t, dir, b), "still", "works")

	res, err := client.RestoreStore(t.Context(), a.ID, &data)
	if err != nil || res.Before != 0 || res.Kept == "" {
		t.Fatalf("%+v, %v", res, err)
	}
	await(t, client, a.ID, func(s cell.Status) bool { return s.Phase == cell.Ready })
	write(t, through(t, dir, a), "victim", "is well")
	if now := await(t, client, b.ID, func(cell.Status) bool { return true }); now != neighbour {
		t.Errorf("the neighbour was %+v and is %+v", neighbour, now)
	}
}
