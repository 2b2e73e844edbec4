package manager_test

import (
	"os"
	"testing"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"sublet.dev/test/tail"
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard()) // it complains when it has none
	os.Exit(tail.Main(m))
}
