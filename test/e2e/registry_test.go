package e2e_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"sublet.dev/test/machine"
	"sublet.dev/test/registry"
	"sublet.dev/test/wire"
)

// The hosts of two registries that are nowhere but where hosts.toml says; one of them
// takes connections and never answers. The kubelet deletes a pod when its pull has ended
// (https://issues.k8s.io/125050), so nothing here waits for a name server.
const (
	mirrored = wire.World + ":5003"
	silent   = wire.World + ":5004"
)

// pulling is a pod whose image comes from a registry.
const pulling = `
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {runAsNonRoot: true, runAsUser: 65534}
  containers:
  - name: app
    image: %s/mirrored:1
    imagePullPolicy: Always
    args: [counter]
    readinessProbe: {httpGet: {path: /healthz, port: 9090}, periodSeconds: 1}
`

// TestRegistryByHostsFile: a node pulls a tenant's image from where a file in the data
// directory says, and not without it, also while another pull gets no answer.
func TestRegistryByHostsFile(t *testing.T) {
	t.Parallel()
	bare(t, "puller")
	address := registry.Serve(t, imageFile(t, mirrored+"/mirrored:1"))
	start := func(name, host string) {
		t.Helper()
		file := filepath.Join(t.TempDir(), name+".yaml")
		if err := os.WriteFile(file, fmt.Appendf(nil, pulling, name, host), 0o600); err != nil {
			t.Fatal(err)
		}
		machine.Kubectl(t, "puller", "apply", "-f", file)
	}
	start("without", mirrored)
	machine.Eventually(t, "the pull fails without the file", func() error {
		if why := waitsFor(t, "puller", "without"); why != "ErrImagePull" && why != "ImagePullBackOff" {
			return fmt.Errorf("the container waits: %q", why)
		}
		return nil
	})
	// One that never answers keeps nobody else waiting.
	never, asked := silence(t)
	// containerd gives up after half a minute and asks at the next address: there are
	// enough for as long as the other pod may take.
	var addresses []string
	for i := range 9 {
		addresses = append(addresses, fmt.Sprintf("%s/%d", never, i))
	}
	tell(t, silent, addresses...)
	start("silent", silent)
	select {
	case <-asked:
	case <-t.Context().Done():
		t.Fatal("nobody has asked the registry that never answers")
	}
	tell(t, mirrored, address)
	start("with", mirrored)
	machine.Kubectl(t, "puller", "wait", "pod/with", "--for=condition=Ready", "--timeout=4m")
	if why := waitsFor(t, "puller", "silent"); why != "ContainerCreating" {
		t.Errorf("the pod whose registry never answers is not waited for: %q", why)
	}
}

// silence listens and never answers, until the test ends. asked is closed when somebody
// has connected.
func silence(t *testing.T) (address string, asked <-chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	first, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		var open []net.Conn
		for {
			c, err := l.Accept()
			if err != nil {
				break // the test has ended
			}
			if open = append(open, c); len(open) == 1 {
				close(first)
			}
		}
		for _, c := range open {
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l.Addr().String(), first
}
