package cell_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// aloneTest is set to a test's name in the process that runs it alone.
const aloneTest = "SUBLET_CELL_TEST_ALONE"

// alone says whether this is the process that runs only this test. In any other it
// starts that one, waits for it, and has the test end as it did there.
func alone(t *testing.T) bool {
	t.Helper()
	if os.Getenv(aloneTest) == t.Name() {
		return true
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-test.run=^" + t.Name() + "$", "-test.v"}
	if end, ok := t.Deadline(); ok {
		args = append(args, "-test.timeout="+time.Until(end).String())
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), aloneTest+"="+t.Name())
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()+" ") {
		t.Fatalf("in a process of its own: %v\n%s", err, out)
	}
	return false
}
