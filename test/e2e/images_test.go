package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"sublet.dev/host-agent/node"
	"sublet.dev/test/images/ociimage"
	"sublet.dev/test/machine"
	"sublet.dev/test/registry"
	"sublet.dev/test/wire"
)

// nobody is where no registry is: at the world's address nobody listens.
const nobody = wire.World + ":5000"

// The hosts of two registries with the same image, which are where hosts.toml says: one
// gives it to everybody, one to its member alone.
const (
	publicHost  = wire.World + ":5001"
	privateHost = wire.World + ":5002"
)

var member = registry.Member{User: "member", Password: "of the registry"}

// imageFile returns the file of an image of that name with the quickstart's program, and
// with more if it shall be another image.
func imageFile(t *testing.T, name string, more ...ociimage.File) string {
	t.Helper()
	app, err := os.ReadFile(filepath.Join(machine.Root, "bin/images/app"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "image.tar"))
	if err != nil {
		t.Fatal(err)
	}
	err = ociimage.Write(f, ociimage.Image{
		Name: name, Entrypoint: []string{"/app"}, User: "65534:65534",
		Files: append([]ociimage.File{{Path: "/app", Mode: 0o755, Data: app}}, more...),
	})
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// use is an image and the policy that it is used by.
type use struct {
	image  string
	policy corev1.PullPolicy
}

// runsOnce is a pod with a container for each use, which ends at once, with a Secret for
// registries or none.
func runsOnce(t *testing.T, name, secret string, uses ...use) string {
	t.Helper()
	pod := corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever},
	}
	if secret != "" {
		pod.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: secret}}
	}
	for i, u := range uses {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: fmt.Sprintf("c%d", i), Image: u.image, ImagePullPolicy: u.policy, Args: []string{"uname"}})
	}
	raw, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// succeed waits until a tenant's pods have ended well.
func succeed(t *testing.T, tenant string, pods ...string) {
	t.Helper()
	for i := range pods {
		pods[i] = "pod/" + pods[i]
	}
	machine.Kubectl(t, tenant, append([]string{"wait", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=5m"}, pods...)...)
}

// neverBegins waits until a pod says for which of these reasons it waits for its image.
func neverBegins(t *testing.T, tenant, pod string, reasons ...string) {
	t.Helper()
	machine.Eventually(t, pod+" says why it waits", func() error {
		why := waitsFor(t, tenant, pod)
		if !slices.Contains(reasons, why) {
			return fmt.Errorf("it waits because of %q", why)
		}
		return nil
	})
}

// waitsFor returns why a pod's container does not begin yet.
func waitsFor(t *testing.T, tenant, pod string) string {
	t.Helper()
	return strings.TrimSpace(machine.Kubectl(t, tenant, "get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[0].state.waiting.reason}"))
}

// tell has the node ask the registry at an address for a host's images, and if that fails
// at the next, until the test ends.
func tell(t *testing.T, host string, addresses ...string) {
	t.Helper()
	file := registry.Tell(t, filepath.Join(machine.DataDir(), "registries"), host, addresses...)
	t.Cleanup(func() {
		if err := os.RemoveAll(filepath.Dir(file)); err != nil {
			t.Error(err)
		}
	})
}

// taken has a tenant pull the image of a file from registries: from one that gives it to
// everybody, and from one that gives it to its member; and have credentials for where
// an imported image seems to be from.
func taken(t *testing.T, tenant, file, imported string) {
	t.Helper()
	tell(t, publicHost, registry.Serve(t, file))
	tell(t, privateHost, registry.ServeTo(t, member, file))
	for name, host := range map[string]string{"member": privateHost, "elsewhere": nobody} {
		machine.Kubectl(t, tenant, "create", "secret", "docker-registry", name, "--docker-server="+host,
			"--docker-username="+member.User, "--docker-password="+member.Password)
	}
	apply(t, tenant, strings.Join([]string{
		runsOnce(t, "public", "", use{publicHost + "/kept:1", corev1.PullAlways}),
		runsOnce(t, "private", "member", use{privateHost + "/kept:1", corev1.PullAlways}),
		runsOnce(t, "elsewhere", "elsewhere", use{imported, corev1.PullAlways}),
	}, "\n---\n"))
	succeed(t, tenant, "public", "private", "elsewhere")
}

// TestImportedImages: an imported image is everybody's by its name, before and after
// somebody has pulled the same image from elsewhere, by every pull policy, and no pull
// replaces it. What was pulled with credentials is only for those who have them, also
// while the same image is everybody's by another name.
func TestImportedImages(t *testing.T) {
	t.Parallel()
	bare(t, "keeper")
	bare(t, "taker")
	before, after, private, nothing := nobody+"/before:1", nobody+"/after:1", privateHost+"/kept:1", nobody+"/nothing:1"
	machine.Sublet(t, "image", "import", imageFile(t, before))
	taken(t, "taker", imageFile(t, publicHost+"/kept:1"), before)
	machine.Sublet(t, "image", "import", imageFile(t, after))

	var all []use
	for _, image := range []string{before, after} {
		for _, policy := range []corev1.PullPolicy{corev1.PullNever, corev1.PullIfNotPresent, corev1.PullAlways} {
			all = append(all, use{image, policy})
		}
	}
	apply(t, "keeper", strings.Join([]string{
		runsOnce(t, "imported", "", all...),
		runsOnce(t, "stranger-never", "", use{private, corev1.PullNever}),
		runsOnce(t, "stranger", "", use{private, corev1.PullIfNotPresent}),
		runsOnce(t, "nothing-never", "", use{nothing, corev1.PullNever}),
		runsOnce(t, "nothing", "", use{nothing, corev1.PullIfNotPresent}),
	}, "\n---\n"))
	apply(t, "taker", runsOnce(t, "again", "member", use{private, corev1.PullNever}, use{private, corev1.PullIfNotPresent}))
	succeed(t, "keeper", "imported")
	succeed(t, "taker", "again")
	for _, pod := range []string{"stranger", "nothing"} {
		neverBegins(t, "keeper", pod+"-never", "ErrImageNeverPull")
		neverBegins(t, "keeper", pod, "ErrImagePull", "ImagePullBackOff")
	}
	replaced(t, after)
}

// replaced imports another image under an imported one's name, loses it, imports it
// again and removes it.
func replaced(t *testing.T, name string) {
	t.Helper()
	runtime := nodeImages(t)
	image := func() *runtimev1.Image {
		status, err := runtime.ImageStatus(t.Context(), &runtimev1.ImageStatusRequest{Image: &runtimev1.ImageSpec{Image: name}})
		if err != nil {
			t.Fatal(err)
		}
		return status.Image
	}
	first := image()
	another := imageFile(t, name, ociimage.File{Path: "/another", Mode: 0o644, Data: []byte("another")})
	machine.Sublet(t, "image", "import", another)
	second := image()
	if !first.GetPinned() || !second.GetPinned() || first.Id == second.Id {
		t.Fatalf("the kubelet may remove it, or it is not replaced: %v, then %v", first, second)
	}
	apply(t, "keeper", runsOnce(t, "second", "", use{name, corev1.PullNever}, use{name, corev1.PullAlways}))
	succeed(t, "keeper", "second")
	ran := machine.Kubectl(t, "keeper", "get", "pod", "second", "-o", "jsonpath={.status.containerStatuses[*].imageID}")
	if ran = strings.TrimSpace(ran); ran != second.Id+" "+second.Id {
		t.Errorf("it ran %s, which is not %s", ran, second.Id)
	}
	// as the kubelet removes one
	if _, err := runtime.RemoveImage(t.Context(), &runtimev1.RemoveImageRequest{Image: &runtimev1.ImageSpec{Image: second.Id}}); err != nil {
		t.Fatal(err)
	}
	apply(t, "keeper", runsOnce(t, "lost", "", use{name, corev1.PullNever}))
	neverBegins(t, "keeper", "lost", "ErrImageNeverPull")
	machine.Sublet(t, "image", "import", another)
	if found := image(); found.GetId() != second.Id || !found.GetPinned() {
		t.Errorf("imported again, it is %v", found)
	}
	machine.Sublet(t, "image", "remove", name)
	apply(t, "keeper", runsOnce(t, "removed", "", use{name, corev1.PullNever}))
	neverBegins(t, "keeper", "removed", "ErrImageNeverPull")
	for image, code := range map[string]int{name: 3, node.CanaryImage: 1, publicHost + "/kept:1": 3} {
		if r := machine.Try(t, "image", "remove", image); r.Code != code {
			t.Errorf("remove %s: want exit code %d: %v", image, code, r)
		}
	}
}

// nodeImages asks the node's containerd for its images, as the kubelet does.
func nodeImages(t *testing.T) runtimev1.ImageServiceClient {
	t.Helper()
	conn, err := node.Dial(node.Layout{Data: machine.DataDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return runtimev1.NewImageServiceClient(conn)
}
