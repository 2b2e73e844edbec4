package e2e_test

import (
	"os"
	"testing"

	"sublet.dev/test/machine"
)

func TestMain(m *testing.M) { os.Exit(machine.Main(m)) }
