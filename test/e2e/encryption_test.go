package e2e_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sublet.dev/test/machine"
)

// contains says whether a file below dir has any of the texts.
func contains(t *testing.T, dir string, texts ...string) bool {
	t.Helper()
	found := false
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		for _, text := range texts {
			found = found || bytes.Contains(data, []byte(text))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// secretText is in a Secret of a tenant; the other is how JSON has it.
const secretText, secretJSON = "correct-horse-battery", "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5"

func makeSecret(t *testing.T, tenant string) {
	t.Helper()
	machine.Kubectl(t, tenant, "create", "secret", "generic", "pass", "--from-literal=x="+secretText)
}

func wantSecret(t *testing.T, tenant string) {
	t.Helper()
	machine.Eventually(t, "the secret is there", func() error {
		r := machine.TryKubectl(t, tenant, "get", "secret", "pass", "-o", "jsonpath={.data.x}")
		if r.Stdout != secretJSON {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
}

func uidOf(t *testing.T, tenant string) string {
	t.Helper()
	return machine.Host(t, "get", "virtualcluster", tenant, "-o", "jsonpath={.metadata.uid}")
}

func TestEncryption(t *testing.T) {
	machine.Running(t)
	machine.Sublet(t, "create", "sealed", "--wait")
	t.Cleanup(func() { machine.Sublet(t, "delete", "sealed", "--wait") })
	machine.Explain(t, "sealed")
	makeSecret(t, "sealed")
	server := filepath.Join(machine.DataDir(), "server")
	if contains(t, server, secretText, secretJSON) {
		t.Error("the secret is on the disk as it is")
	}
	store := filepath.Join(server, "tenants", uidOf(t, "sealed"))
	if !contains(t, store, "/registry/secrets/default/pass") { // the control: names are readable
		t.Error("the search does not find what is there")
	}

	t.Run("a new key, and the cell is killed meanwhile", func(t *testing.T) {
		rotate := machine.Command("store", "rotate-key", "sealed")
		if err := rotate.Start(); err != nil {
			t.Fatal(err)
		}
		wantKey(t, "sealed", "Keys: 1, 2")
		machine.Kill(t, machine.CellPID)
		_ = rotate.Wait() // it may have been interrupted
		wantKey(t, "sealed", "Key in use: 2")
		wantKey(t, "sealed", "waiting until the history")
		wantSecret(t, "sealed")
	})

	t.Run("a key that is lost, and found again", func(t *testing.T) {
		keys := filepath.Join(server, "keys", uidOf(t, "sealed")+".json")
		if err := os.Rename(keys, keys+".lost"); err != nil {
			t.Fatal(err)
		}
		machine.Kill(t, machine.CellPID)
		machine.Eventually(t, "the tenant says what is missing", func() error {
			if out := machine.Sublet(t, "describe", "sealed"); !strings.Contains(out, "EncryptionKeyMissing") || !strings.Contains(out, keys) {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
		if err := os.Rename(keys+".lost", keys); err != nil {
			t.Fatal(err)
		}
		wantSecret(t, "sealed")
	})

	t.Run("the host", func(t *testing.T) {
		machine.Sublet(t, "store", "rotate-key", "host")
		wantKey(t, "host", "Key in use: 2")
	})
}

// wantKey waits until the status of a store's keys says so.
func wantKey(t *testing.T, name, want string) {
	t.Helper()
	machine.Eventually(t, "the status of the keys says "+want, func() error {
		r := machine.Try(t, "store", "rotate-key", name, "--status")
		if !strings.Contains(strings.Join(strings.Fields(r.Stdout), " "), want) {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
}

func TestTenantOnEtcd(t *testing.T) {
	machine.Running(t)
	program := filepath.Join(machine.Root, "bin/peers/etcd")
	if _, err := os.Stat(program); err != nil {
		t.Skip("there is no etcd to test with: run `make peers`")
	}
	dir := t.TempDir()
	const client, peer = "http://127.23.79.1:2379", "http://127.23.79.1:2380" // nobody else of the machine is there
	etcd := exec.Command(program, "--data-dir", dir, "--log-level", "error", "--initial-cluster", "default="+peer,
		"--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer)
	if err := etcd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = etcd.Process.Kill()
		_ = etcd.Wait() // killed: always an error
	})
	machine.Explain(t, "onetcd")
	machine.Sublet(t, "create", "onetcd", "--wait", "--store-etcd", client)
	if out := machine.Sublet(t, "describe", "onetcd"); !strings.Contains(out, "prefix /sublet/onetcd/") {
		t.Errorf("described as:\n%s", out)
	}
	makeSecret(t, "onetcd")
	machine.Kill(t, machine.CellPID)
	wantSecret(t, "onetcd")
	if contains(t, dir, secretText, secretJSON) || !contains(t, dir, "/sublet/onetcd//registry/secrets/default/pass") {
		t.Error("the secret is in the etcd as it is, or not at all")
	}
	count := func() string {
		out, err := exec.Command(filepath.Join(machine.Root, "bin/peers/etcdctl"), "--endpoints", client, "get", "", "--prefix", "--count-only", "--write-out=fields").CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	if out := count(); strings.Contains(out, `"Count" : 0`) {
		t.Errorf("before the tenant is deleted: %s", out)
	}
	machine.Sublet(t, "delete", "onetcd", "--wait")
	if out := count(); !strings.Contains(out, `"Count" : 0`) {
		t.Errorf("the tenant left keys: %s", out)
	}
}
