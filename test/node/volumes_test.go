package node_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"sublet.dev/host-agent/node"
	"sublet.dev/isolation/baseline"
	"sublet.dev/isolation/tenant"
)

// appImage is the quickstart's image: it understands `kubectl cp`.
const appImage = "sublet.dev/quickstart:1"

// TestVolumes is the life of a volume in each sandbox; its parts build on each other.
func TestVolumes(t *testing.T) {
	h := newHost(t)
	images, err := os.ReadFile(filepath.Join(root(t), "bin/images/quickstart.tar"))
	if err != nil {
		t.Skip("the quickstart's image is not there: run `make images`")
	}
	_, err = h.client.StorageV1().StorageClasses().Create(t.Context(), baseline.LocalStorage(), metav1.CreateOptions{})
	h.must(err)
	h.startAgent()
	_, err = h.client.CoreV1().RESTClient().Post().Resource("nodes").Name(nodeName).SubResource("proxy").Suffix("sublet", "images").
		SetHeader("Content-Type", "application/x-tar").Body(images).DoRaw(t.Context())
	h.must(err)
	h.mustKubectl("create", "secret", "generic", "quickstart", "--from-literal=password=x")
	for _, s := range tenant.Sandboxes() {
		h.claim(string(s), "16Mi")
		h.run(user(s))
		h.put(s, "file", []byte("of "+s))
	}
	t.Run("it outlives its pod", func(t *testing.T) { testOutlives(h.in(t)) })
	t.Run("it is full for itself alone", func(t *testing.T) { testFull(h.in(t)) })
	t.Run("it grows", func(t *testing.T) { testGrows(h.in(t)) })
	h.stopAgent(syscall.SIGKILL)
	t.Run("stopping the node frees its devices", func(t *testing.T) { testUnmounted(h.in(t)) })
	h.startAgent()
	for _, s := range tenant.Sandboxes() {
		h.awaitFile(s, "after the node was stopped")
	}
	t.Run("it goes with its claim", func(t *testing.T) { testGoes(h.in(t)) })
	h.stopAgent(syscall.SIGKILL)
	t.Run("purging leaves nothing", func(t *testing.T) { testPurge(h.in(t)) })
	if left := h.devices(); len(left) > 0 {
		t.Errorf("loop devices are left: %v", left)
	}
}

// claim makes a claim of the class of the node's own disk.
func (h *host) claim(name, size string) {
	h.t.Helper()
	_, err := h.client.CoreV1().PersistentVolumeClaims(namespace).Create(h.t.Context(), &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: ptr.To(baseline.LocalClass),
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}},
		},
	}, metav1.CreateOptions{})
	h.must(err)
}

// user is a pod of a sandbox that mounts its claim, not as root.
func user(s tenant.Sandbox) *corev1.Pod {
	p := pod(s)
	p.Spec.InitContainers = nil
	p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr.To[int64](65534), FSGroup: ptr.To[int64](2000)}
	p.Spec.Containers = []corev1.Container{{
		Name: "app", Image: appImage, ImagePullPolicy: corev1.PullNever, Args: []string{"counter"},
		VolumeMounts:   []corev1.VolumeMount{{Name: "data", MountPath: "/data"}, {Name: "secret", MountPath: "/etc/secret"}},
		ReadinessProbe: &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(9090)}}},
	}}
	p.Spec.Volumes = []corev1.Volume{
		{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: string(s)}}},
		{Name: "secret", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "quickstart"}}},
	}
	return p
}

// copyTo copies bytes into a pod's volume, as far as there is room.
func (h *host) copyTo(s tenant.Sandbox, name string, content []byte) (string, error) {
	h.t.Helper()
	file := filepath.Join(h.t.TempDir(), name)
	h.must(os.WriteFile(file, content, 0o644))
	return h.kubectl("cp", file, string(s)+":/data/"+name)
}

func (h *host) put(s tenant.Sandbox, name string, content []byte) {
	h.t.Helper()
	if out, err := h.copyTo(s, name, content); err != nil {
		h.t.Fatalf("write into the volume of %s: %v\n%s", s, err, out)
	}
}

// get copies a file out of a pod's volume.
func (h *host) get(s tenant.Sandbox, name string) string {
	h.t.Helper()
	file := filepath.Join(h.t.TempDir(), "got")
	if _, err := h.kubectl("cp", string(s)+":/data/"+name, file); err != nil {
		return ""
	}
	raw, _ := os.ReadFile(file) // absent: nothing was there
	return string(raw)
}

// awaitFile waits until a pod serves what was written into its volume.
func (h *host) awaitFile(s tenant.Sandbox, when string) {
	h.t.Helper()
	h.wait(fmt.Sprintf("%s to read its file %s", s, when), func(context.Context) (bool, string) {
		got := h.get(s, "file")
		return got == "of "+string(s), got
	})
}

func (h *host) end(s tenant.Sandbox) {
	h.t.Helper()
	h.mustKubectl("delete", "pod", string(s), "--timeout=120s")
}

// files lists the volumes on the node's disk.
func (h *host) files() []string {
	h.t.Helper()
	found, err := filepath.Glob(filepath.Join(node.Layout{Data: h.dir}.Volumes(), "images", "*"))
	h.must(err)
	return found
}

// devices lists the loop devices of the node's volumes.
func (h *host) devices() []string {
	h.t.Helper()
	found, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	h.must(err)
	var ours []string
	for _, f := range found {
		if raw, err := os.ReadFile(f); err == nil && strings.HasPrefix(string(raw), h.dir+"/") {
			ours = append(ours, f)
		}
	}
	return ours
}

func testOutlives(h *host) {
	for _, s := range tenant.Sandboxes() {
		h.end(s)
		h.run(user(s))
		h.awaitFile(s, "again")
	}
}

func testFull(h *host) {
	file := filepath.Join(h.t.TempDir(), "large")
	h.must(os.WriteFile(file, make([]byte, 20<<20), 0o644))
	if !h.says("no space left", "cp", file, string(tenant.GVisor)+":/data/large") {
		h.t.Error("there was room for 20 MiB in a volume of 16")
	}
	h.put(tenant.RuncUserNS, "more", bytes.Repeat([]byte("x"), 4<<20))
}

// says runs kubectl until it says something or ends, and returns whether it said it:
// a copy that fails waits for long with what it did not get rid of.
func (h *host) says(text string, args ...string) bool {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(root(h.t), "bin/kubectl"), append([]string{"--kubeconfig", h.admin}, args...)...)
	said, err := cmd.StderrPipe()
	h.must(err)
	h.must(cmd.Start())
	lines, found := bufio.NewScanner(said), false
	for !found && lines.Scan() {
		found = strings.Contains(lines.Text(), text)
	}
	cancel()
	_ = cmd.Wait() // killed, unless it has ended
	return found
}

// testGrows: in use where the kernel lets the agent, elsewhere after the pod.
func testGrows(h *host) {
	s := tenant.RuncUserNS
	h.mustKubectl("patch", "pvc", string(s), "-p", `{"spec":{"resources":{"requests":{"storage":"48Mi"}}}}`)
	status := func(ctx context.Context) (grown, waits bool, why string) {
		c, err := h.client.CoreV1().PersistentVolumeClaims(namespace).Get(ctx, string(s), metav1.GetOptions{})
		if err != nil {
			return false, false, err.Error()
		}
		for _, condition := range c.Status.Conditions {
			waits = waits || condition.Type == corev1.PersistentVolumeClaimFileSystemResizePending
		}
		return c.Status.Capacity.Storage().Value() >= 48<<20, waits, fmt.Sprintf("%+v", c.Status)
	}
	var inUse bool
	h.wait("the volume to grow, or to wait", func(ctx context.Context) (bool, string) {
		grown, waits, why := status(ctx)
		inUse = grown
		return grown || waits, why
	})
	h.t.Logf("it grew in use: %v", inUse)
	if !inUse {
		h.end(s)
		h.wait("the volume to grow", func(ctx context.Context) (bool, string) {
			grown, _, why := status(ctx)
			return grown, why
		})
		h.run(user(s))
	}
	h.awaitFile(s, "after growing")
	h.put(s, "larger", make([]byte, 24<<20))
}

func testUnmounted(h *host) {
	h.down(false)
	if left := append(h.traces(), h.devices()...); len(left) > 0 {
		h.t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
	if len(h.files()) != len(tenant.Sandboxes()) {
		h.t.Errorf("volumes on disk: %v", h.files())
	}
}

func testGoes(h *host) {
	for _, s := range tenant.Sandboxes() {
		h.end(s)
		h.mustKubectl("delete", "pvc", string(s), "--timeout=120s")
	}
	h.wait("the volumes to go", func(ctx context.Context) (bool, string) {
		list, err := h.client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err.Error()
		}
		left := append(h.files(), h.devices()...)
		return len(list.Items)+len(left) == 0, fmt.Sprint(len(list.Items), left)
	})
}
