package cell_test

import (
	"fmt"
	"os"
	"testing"

	"sublet.dev/tenant-apiserver/cell"
	"sublet.dev/test/tail"
)

// golden is the directory that the cells of all tests share, as those of a machine
// do.
var golden string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	var err error
	if golden, err = os.MkdirTemp("", "golden"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(golden)
	cell.SetDebutWait(patience) // how fast a busy machine is says nothing
	return tail.Main(m)
}
