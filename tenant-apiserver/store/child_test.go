package store

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

// The environment that tells a copy of the test binary what to be instead of a
// test.
const (
	childRole  = "SUBLET_STORE_TEST_ROLE"
	childPath  = "SUBLET_STORE_TEST_PATH"
	childFault = "SUBLET_STORE_TEST_FAULT" // POINT:PASSES, see faultAt
)

func runChild(role string) int {
	roles := map[string]func(path string) error{
		"load": childLoad, "script": childScript, "full": childFullDisk, "crowded": childCrowded, "limited": childLimited,
	}
	if err := roles[role](os.Getenv(childPath)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func child(t *testing.T, role, path string, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(append(os.Environ(), childRole+"="+role, childPath+"="+path), env...)
	cmd.Stderr = os.Stderr
	return cmd
}

// fastPace makes a small load meet checkpoints, full backlogs and rests.
var fastPace = pace{
	layerBytes: 24 << 10, backlogBytes: 64 << 10, reserveBytes: 64 << 10, segmentBytes: 4 << 10,
	layerAge: 2 * time.Millisecond, retry: 5 * time.Millisecond, restAge: time.Millisecond, shrinkBytes: 1,
}
