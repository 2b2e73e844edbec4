package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sublet.dev/test/images/ociimage"
	"sublet.dev/test/machine"
	"sublet.dev/test/registry"
)

// mirrored is the host of a registry that is nowhere but where hosts.toml says.
const mirrored = "registry.example.org"

// pulling is a pod whose image comes from there.
const pulling = `
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {runAsNonRoot: true, runAsUser: 65534}
  containers:
  - name: app
    image: ` + mirrored + `/mirrored:1
    imagePullPolicy: Always
    args: [counter]
    readinessProbe: {httpGet: {path: /healthz, port: 9090}, periodSeconds: 1}
`

// mirroredImage writes an archive with an image that no node has. It is none of the
// imported ones: of an image that it has pulled a kubelet asks a registry whether others
// may have it, under whatever name they have it.
func mirroredImage(t *testing.T) string {
	t.Helper()
	app, err := os.ReadFile(filepath.Join(machine.Root, "bin/images/app"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "mirrored.tar"))
	if err != nil {
		t.Fatal(err)
	}
	err = ociimage.Write(f, ociimage.Image{
		Name: mirrored + "/mirrored:1", User: "65534:65534", Entrypoint: []string{"/app"},
		Files: []ociimage.File{{Path: "/app", Mode: 0o755, Data: app}},
	})
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// TestRegistryByHostsFile: a node pulls a tenant's image from where a file in the data
// directory says, and not without it.
func TestRegistryByHostsFile(t *testing.T) {
	t.Parallel()
	bare(t, "puller")
	address := registry.Serve(t, mirroredImage(t))
	start := func(name string) {
		t.Helper()
		file := filepath.Join(t.TempDir(), name+".yaml")
		if err := os.WriteFile(file, fmt.Appendf(nil, pulling, name), 0o600); err != nil {
			t.Fatal(err)
		}
		machine.Kubectl(t, "puller", "apply", "-f", file)
	}
	start("without")
	machine.Eventually(t, "the pull fails without the file", func() error {
		why := machine.Kubectl(t, "puller", "get", "pod", "without", "-o", "jsonpath={.status.containerStatuses[0].state.waiting.reason}")
		if why = strings.TrimSpace(why); why != "ErrImagePull" && why != "ImagePullBackOff" {
			return fmt.Errorf("the container waits: %q", why)
		}
		return nil
	})
	file := registry.Tell(t, filepath.Join(machine.DataDir(), "registries"), mirrored, address)
	t.Cleanup(func() {
		if err := os.RemoveAll(filepath.Dir(file)); err != nil {
			t.Error(err)
		}
	})
	start("with")
	machine.Kubectl(t, "puller", "wait", "pod/with", "--for=condition=Ready", "--timeout=5m")
}
