package wire_test

import (
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"sublet.dev/test/wire"
)

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	os.Exit(wire.Main(m))
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
}

// The servers that tenants must not reach do answer: else a fence would be
// "proven" by their absence.
func TestTheWorldAnswers(t *testing.T) {
	needRoot(t)
	for _, address := range []string{wire.World, wire.Metadata, wire.Internet} {
		resp, err := http.Get("http://" + address + "/")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !strings.HasPrefix(string(body), address+" saw "+wire.Node) {
			t.Errorf("%s answered %q, %v", address, body, err)
		}
	}
}

func TestNothingElseIsHere(t *testing.T) {
	needRoot(t)
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	if len(links) != 2 {
		t.Errorf("the node has %v, want lo and eth0", links)
	}
}
