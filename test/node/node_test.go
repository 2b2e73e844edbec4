package node_test

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"sublet.dev/host-agent/node"
	"sublet.dev/isolation/tenant"
)

// hostPorts are ports of the node that lead to the pods.
var hostPorts = map[tenant.Sandbox]int32{tenant.GVisor: 18081, tenant.RuncUserNS: 18082}

// namespace is where the tests' pods are.
const namespace = "default"

// pod returns a canary that serves, in a sandbox, and writes a line to its log.
func pod(s tenant.Sandbox) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: string(s), Namespace: namespace, Labels: map[string]string{"app": string(s)}},
		Spec: corev1.PodSpec{
			RuntimeClassName:              ptr.To(s.RuntimeClass()),
			TerminationGracePeriodSeconds: ptr.To[int64](1),
			InitContainers: []corev1.Container{{
				Name: "hello", Image: node.CanaryImage, ImagePullPolicy: corev1.PullNever, Args: []string{"uname"},
			}},
			Containers: []corev1.Container{{
				Name: "canary", Image: node.CanaryImage, ImagePullPolicy: corev1.PullNever, Args: []string{"serve", ":8080"},
				Ports:          []corev1.ContainerPort{{ContainerPort: 8080, HostPort: hostPorts[s]}},
				VolumeMounts:   []corev1.VolumeMount{{Name: "shared", MountPath: "/shared", MountPropagation: ptr.To(corev1.MountPropagationHostToContainer)}},
				ReadinessProbe: &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: serves}}},
			}},
			Volumes: []corev1.Volume{{Name: "shared", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}}},
		},
	}
	if s == tenant.RuncUserNS {
		p.Spec.HostUsers = ptr.To(false)
	}
	return p
}

// run starts a pod and returns when it is ready.
func (h *host) run(p *corev1.Pod) {
	h.t.Helper()
	h.wait("the service account", func(ctx context.Context) (bool, string) {
		_, err := h.client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
		return err == nil, fmt.Sprint(err)
	})
	_, err := h.client.CoreV1().Pods(namespace).Create(h.t.Context(), p, metav1.CreateOptions{})
	h.must(err)
	h.wait("pod "+p.Name, func(ctx context.Context) (bool, string) {
		now, err := h.client.CoreV1().Pods(namespace).Get(ctx, p.Name, metav1.GetOptions{})
		if err != nil {
			return false, err.Error()
		}
		for _, c := range now.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				return true, ""
			}
		}
		return false, fmt.Sprintf("%+v", now.Status)
	})
}

// TestNode is one node's life; its parts build on each other.
func TestNode(t *testing.T) {
	h := newHost(t)
	h.startAgent()
	for _, s := range tenant.Sandboxes() {
		h.run(pod(s))
	}
	t.Run("pods run in their sandboxes", func(t *testing.T) { testSandboxes(h.in(t)) })
	t.Run("logs, exec and port-forward work in each", func(t *testing.T) { testStreams(h.in(t)) })
	t.Run("a pod reaches another by its Service", func(t *testing.T) { testService(h.in(t)) })
	t.Run("an image comes in through the node", func(t *testing.T) { testImport(h.in(t)) })
	t.Run("nobody else may ask the node", func(t *testing.T) { testStrangers(h.in(t)) })
	t.Run("pods do not notice when containerd is killed", func(t *testing.T) { testContainerdDies(h.in(t)) })
	t.Run("pods do not notice when the agent is killed", func(t *testing.T) { testAgentDies(h.in(t)) })
	h.stopAgent(syscall.SIGTERM)
	t.Run("stopping the node stops pods and keeps images", func(t *testing.T) { testDown(h.in(t)) })
	h.startAgent()
	h.wait("the pods to run again", func(context.Context) (bool, string) {
		for _, s := range tenant.Sandboxes() {
			if out, err := h.kubectl("exec", string(s), "--", "/canary", "uname"); err != nil {
				return false, out
			}
		}
		return true, ""
	})
	h.stopAgent(syscall.SIGKILL)
	h.must(syscall.Kill(h.containerd(), syscall.SIGKILL))
	t.Run("purging leaves nothing, whatever was killed", func(t *testing.T) { testPurge(h.in(t)) })
}

func testSandboxes(h *host) {
	for _, s := range tenant.Sandboxes() {
		f := h.facts(string(s))
		if f.Sandbox.Handler != s.Handler() {
			h.t.Errorf("%s: the handler is %q", s, f.Sandbox.Handler)
		}
		isRunsc := strings.HasSuffix(f.Sandbox.Exe, "/bin/node/runsc") && strings.Contains(strings.Join(f.Sandbox.Argv, " "), "boot")
		if isRunsc != (s == tenant.GVisor) {
			h.t.Errorf("%s: the process is %s %q", s, f.Sandbox.Exe, f.Sandbox.Argv)
		}
		if s == tenant.RuncUserNS && strings.Join(strings.Fields(f.Sandbox.UIDMap), " ") == "0 0 4294967295" {
			h.t.Errorf("%s: the process has the host's users: %q", s, f.Sandbox.UIDMap)
		}
		uname := h.mustKubectl("exec", string(s), "--", "/canary", "uname")
		if strings.Contains(uname, "gvisor") != (s == tenant.GVisor) {
			h.t.Errorf("%s: uname says %s", s, uname)
		}
		for _, c := range f.Sandbox.Cgroups {
			if strings.Contains(c, ":memory:") && !strings.Contains(c, "/sublet-") {
				h.t.Errorf("%s: the process is outside the node's cgroup: %s", s, c)
			}
		}
	}
	f := h.facts(string(tenant.GVisor))
	for _, part := range []string{"kubelet", "containerd", "runc", "runsc"} {
		if f.Node.Versions[part] == "" {
			h.t.Errorf("the node does not say which %s it has: %v", part, f.Node.Versions)
		}
	}
}

func testStreams(h *host) {
	for _, s := range tenant.Sandboxes() {
		if out := h.mustKubectl("logs", string(s), "-c", "hello"); !strings.Contains(out, `"ok":true`) {
			h.t.Errorf("%s: the log is %q", s, out)
		}
		if out := h.mustKubectl("exec", string(s), "--", "/canary", "caps"); !strings.Contains(out, "CapEff: 0000000000000000") {
			h.t.Errorf("%s: exec gave %q", s, out)
		}
		for name, dialer := range h.dialers(string(s)) {
			if out, err := h.forward(dialer, 8080); err != nil || !strings.Contains(out, string(s)+" asked by") {
				h.t.Errorf("%s: through port-forward over %s came %q: %v", s, name, out, err)
			}
			if out, err := h.forward(dialer, 1); err == nil {
				h.t.Errorf("%s: a port without listener answered over %s: %q", s, name, out)
			}
		}
	}
}

func testService(h *host) {
	_, err := h.client.CoreV1().Services(namespace).Create(h.t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": string(tenant.RuncUserNS)}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: serves}}},
	}, metav1.CreateOptions{})
	h.must(err)
	service, err := h.client.CoreV1().Services(namespace).Get(h.t.Context(), "web", metav1.GetOptions{})
	h.must(err)
	for _, s := range tenant.Sandboxes() {
		h.wait("the Service to answer "+string(s), func(context.Context) (bool, string) {
			out, err := h.kubectl("exec", string(s), "--", "/canary", "http", "http://"+service.Spec.ClusterIP)
			return err == nil && strings.Contains(out, string(tenant.RuncUserNS)+" asked by 10.244."), out
		})
	}
}

// testContainerdDies kills containerd and expects the same pods afterwards.
func testContainerdDies(h *host) {
	before := h.sandboxes()
	old := h.containerd()
	h.must(syscall.Kill(old, syscall.SIGKILL))
	h.wait("another containerd", func(context.Context) (bool, string) {
		return h.containerd() != old, "the old one is recorded"
	})
	h.serving()
	h.same(before)
}

func testAgentDies(h *host) {
	before, containerd := h.sandboxes(), h.containerd()
	h.stopAgent(syscall.SIGKILL)
	h.serving()
	h.startAgent()
	h.same(before)
	if now := h.containerd(); now != containerd {
		h.t.Errorf("containerd was started again: %d, was %d", now, containerd)
	}
	h.wait("exec to work again", func(context.Context) (bool, string) {
		out, err := h.kubectl("exec", string(tenant.GVisor), "--", "/canary", "uname")
		return err == nil && strings.Contains(out, "gvisor"), out
	})
}
