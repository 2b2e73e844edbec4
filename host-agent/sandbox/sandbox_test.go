package sandbox_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"sublet.dev/host-agent/sandbox"
	"sublet.dev/isolation/tenant"
)

// handlers is what a runtime says of itself: the input of a decision, no stand-in
// for a runtime.
type handlers []*runtimev1.RuntimeHandler

func (h handlers) Status(context.Context, *runtimev1.StatusRequest, ...grpc.CallOption) (*runtimev1.StatusResponse, error) {
	return &runtimev1.StatusResponse{RuntimeHandlers: h}, nil
}

func handler(name string, userNamespaces bool) *runtimev1.RuntimeHandler {
	return &runtimev1.RuntimeHandler{Name: name, Features: &runtimev1.RuntimeHandlerFeatures{UserNamespaces: userNamespaces}}
}

func TestOnlyWhatWorksIsOffered(t *testing.T) {
	works := func(context.Context) error { return nil }
	fails := func(context.Context) error { return errors.New("no systrap") }
	for _, c := range []struct {
		what         string
		has          handlers
		prove        func(context.Context) error // gVisor's; the other's succeeds
		gvisor, runc bool
	}{
		{"both", handlers{handler("runc", true), handler("runsc", true)}, works, true, true},
		{"no runsc", handlers{handler("runc", true)}, works, false, true},
		{"runsc does not start", handlers{handler("runc", true), handler("runsc", true)}, fails, false, true},
		{"no user namespaces", handlers{handler("runc", false), handler("runsc", true)}, works, true, false},
		{"features unknown", handlers{{Name: "runc"}, {Name: "runsc"}}, works, true, false},
		{"nothing", nil, works, false, false},
		{"no proof", handlers{handler("runc", true), handler("runsc", true)}, nil, false, true},
	} {
		offer, err := sandbox.Offers(t.Context(), c.has, sandbox.Proofs{tenant.GVisor: c.prove, tenant.RuncUserNS: works})
		if err != nil {
			t.Fatal(err)
		}
		for s, want := range map[tenant.Sandbox]bool{tenant.GVisor: c.gvisor, tenant.RuncUserNS: c.runc} {
			label := offer.Labels()[s.NodeLabel()]
			if (offer[s] == nil) != want || (label != nil) != want {
				t.Errorf("%s: %s offered: %v, label %v; want %v", c.what, s, offer[s] == nil, label, want)
			}
		}
	}
}

func TestProveRunsc(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a gVisor sandbox needs root")
	}
	runsc, err := filepath.Abs("../../bin/node/runsc")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(runsc); err != nil {
		t.Skip("runsc is not there: run `make deps`")
	}
	run := t.TempDir()
	if err := sandbox.ProveRunsc(t.Context(), runsc, run); err != nil {
		t.Error(err)
	}
	if err := sandbox.ProveRunsc(t.Context(), "/bin/true", run); err == nil {
		t.Error("a program that is no sandbox passed for one")
	}
	left, err := os.ReadDir(run)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

func TestProveUserNamespaces(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	run := t.TempDir()
	// A filesystem that can never be shown under other ids.
	if err := sandbox.ProveUserNamespaces("/proc/self", run); err == nil {
		t.Error("/proc passed for a place of images")
	}
	err := sandbox.ProveUserNamespaces(t.TempDir(), run)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		t.Skipf("this kernel cannot: %v", err)
	}
	if err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(run)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}
