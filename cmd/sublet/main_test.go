package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"sublet.dev/test/tail"
)

// TestMain makes the test binary be sublet when it is called by that name.
func TestMain(m *testing.M) {
	testscript.Main(tests{m}, map[string]func(){"sublet": func() { os.Exit(Main()) }})
}

// tests is the package's, without what the control planes in them log.
type tests struct{ m *testing.M }

func (t tests) Run() int { return tail.Main(t.m) }

// TestScripts runs the scripts in testdata: what users type, and what they get.
// None of them starts a machine (that is test/e2e's).
func TestScripts(t *testing.T) {
	commands := storeCommands()
	commands["exits"] = exits
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("SUBLET_DATA_DIR", filepath.Join(e.WorkDir, "data"))
			e.Setenv("NAME64", strings.Repeat("a", 64))
			return nil
		},
		Condition: func(cond string) (bool, error) { return cond == "root" && os.Geteuid() == 0, nil },
		Cmds:      commands,
	})
}

// exits runs sublet and holds its exit code against the first argument.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: exits CODE [ARGUMENT...]")
	}
	err := ts.Exec("sublet", args[1:]...)
	code := "0"
	if err != nil {
		code = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if code != args[0] {
		ts.Fatalf("sublet %v: exit code %s, want %s", args[1:], code, args[0])
	}
}
