package stories_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sublet.dev/test/machine"
)

func TestMain(m *testing.M) { os.Exit(machine.Main(m)) }

// byTarget skips a test unless `make stories` runs it.
func byTarget(t *testing.T) {
	t.Helper()
	if os.Getenv("SUBLET_STORIES") == "" {
		t.Skip("only `make stories` runs this: it takes minutes on two cores")
	}
}

// tenant makes a tenant and deletes it at the end.
func tenant(t *testing.T, name string) {
	t.Helper()
	machine.Running(t)
	t.Cleanup(func() { machine.Sublet(t, "delete", name, "--wait", "--ignore-not-found") })
	machine.Sublet(t, "create", name, "--wait")
}

// written returns a new file with that content.
func written(t *testing.T, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file.yaml")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// get returns what kubectl's jsonpath finds in a tenant's objects.
func get(t *testing.T, tenant, jsonpath string, what ...string) string {
	t.Helper()
	args := append([]string{"get", "-o", "jsonpath=" + jsonpath}, what...)
	return strings.TrimSpace(machine.Kubectl(t, tenant, args...))
}
