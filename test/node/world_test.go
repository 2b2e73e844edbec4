package node_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"

	"sublet.dev/host-agent/agent"
	"sublet.dev/host-agent/node"
	"sublet.dev/host-agent/sandbox"
	"sublet.dev/isolation/tenant"
	"sublet.dev/test/images/ociimage"
	"sublet.dev/test/wire"
)

// serves is the port that canaries listen on.
var serves = intstr.FromInt32(8080)

// in lends the host to a subtest; subtests run one after another.
func (h *host) in(t *testing.T) *host {
	outer := h.t
	h.t = t
	t.Cleanup(func() { h.t = outer })
	return h
}

// nodeFacts is what a node tells through the API.
type nodeFacts struct {
	Node struct {
		Versions map[string]string `json:"versions"`
	} `json:"node"`
	Sandbox *sandbox.Facts `json:"sandbox"`
}

func (h *host) facts(pod string) nodeFacts {
	h.t.Helper()
	raw := h.mustKubectl("get", "--raw", "/api/v1/nodes/"+nodeName+"/proxy/sublet/facts?namespace="+namespace+"&pod="+pod)
	var f nodeFacts
	if err := json.Unmarshal([]byte(raw), &f); err != nil || f.Sandbox == nil {
		h.t.Fatalf("the node says %s: %v", raw, err)
	}
	return f
}

// sandboxes returns the sandbox processes by pod.
func (h *host) sandboxes() map[tenant.Sandbox]int {
	h.t.Helper()
	pids := map[tenant.Sandbox]int{}
	for _, s := range tenant.Sandboxes() {
		pids[s] = h.facts(string(s)).Sandbox.PID
	}
	return pids
}

// same fails unless the pods are the very processes that they were.
func (h *host) same(before map[tenant.Sandbox]int) {
	h.t.Helper()
	h.wait("the node to name its sandboxes again", func(ctx context.Context) (bool, string) {
		out, err := h.kubectl("get", "--raw", "/api/v1/nodes/"+nodeName+"/proxy/sublet/facts?namespace="+namespace+"&pod="+string(tenant.GVisor))
		return err == nil, out
	})
	for s, pid := range h.sandboxes() {
		if pid != before[s] {
			h.t.Errorf("%s runs in process %d, was %d", s, pid, before[s])
		}
	}
	pods, err := h.client.CoreV1().Pods(namespace).List(h.t.Context(), metav1.ListOptions{})
	h.must(err)
	for _, p := range pods.Items {
		for _, c := range p.Status.ContainerStatuses {
			if c.RestartCount != 0 {
				h.t.Errorf("%s was restarted %d times", p.Name, c.RestartCount)
			}
		}
	}
}

// serving fails unless every pod answers at its address.
func (h *host) serving() {
	h.t.Helper()
	for _, s := range tenant.Sandboxes() {
		p, err := h.client.CoreV1().Pods(namespace).Get(h.t.Context(), string(s), metav1.GetOptions{})
		h.must(err)
		response, err := http.Get("http://" + net.JoinHostPort(p.Status.PodIP, serves.String()))
		if err != nil {
			h.t.Errorf("%s does not answer: %v", s, err)
			continue
		}
		h.must(response.Body.Close())
	}
}

// containerd returns the process id of the recorded containerd.
func (h *host) containerd() int {
	h.t.Helper()
	raw, err := os.ReadFile(filepath.Join(h.dir, "run/containerd.json"))
	h.must(err)
	var r struct {
		PID int `json:"pid"`
	}
	h.must(json.Unmarshal(raw, &r))
	return r.PID
}

// dialers are the ways of a port-forward: SPDY in a WebSocket, as kubectl does it
// first, and SPDY alone, as it does it when the first fails.
func (h *host) dialers(pod string) map[string]httpstream.Dialer {
	h.t.Helper()
	config := h.admins()
	client, err := kubernetes.NewForConfig(config)
	h.must(err)
	at := client.CoreV1().RESTClient().Post().Namespace(namespace).Resource("pods").Name(pod).SubResource("portforward").URL()
	socket, err := portforward.NewSPDYOverWebsocketDialerForStreaming(at, config)
	h.must(err)
	transport, upgrader, err := spdy.RoundTripperFor(config)
	h.must(err)
	return map[string]httpstream.Dialer{"WebSocket": socket, "SPDY": spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, at)}
}

// forward gets / from a pod's port through a dialer.
func (h *host) forward(dialer httpstream.Dialer, port int) (string, error) {
	h.t.Helper()
	stop, ready := make(chan struct{}), make(chan struct{})
	var stderr bytes.Buffer
	f, err := portforward.NewOnAddressesForStreaming(dialer, []string{"127.0.0.1"}, []string{fmt.Sprintf("0:%d", port)}, stop, ready, io.Discard, &stderr)
	h.must(err)
	ended := make(chan error, 1)
	go func() { ended <- f.ForwardPorts() }()
	defer func() { close(stop); <-ended }()
	select {
	case <-ready:
	case err := <-ended:
		ended <- nil
		return "", err
	}
	ports, err := f.GetPorts()
	h.must(err)
	client := &http.Client{Timeout: patience}
	response, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d", ports[0].Local))
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}

// admins returns a client of the API as the host's admin, over the network.
func (h *host) admins() *rest.Config {
	h.t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", h.admin)
	h.must(err)
	return config
}

// testImport sends an image through the API to the node and runs it.
func testImport(h *host) {
	binary, err := os.ReadFile(filepath.Join(root(h.t), "bin/node/.made/canary"))
	h.must(err)
	var tar bytes.Buffer
	h.must(ociimage.Write(&tar, ociimage.Image{
		Name: "example.org/imported:2", Entrypoint: []string{"/app", "serve"},
		Files: []ociimage.File{{Path: "/app", Mode: 0o755, Data: binary}},
	}))
	send := func(body io.Reader) ([]byte, error) {
		return h.client.CoreV1().RESTClient().Post().Resource("nodes").Name(nodeName).SubResource("proxy").Suffix("sublet", "images").
			SetHeader("Content-Type", "application/x-tar").Body(body).DoRaw(h.t.Context())
	}
	if out, err := send(strings.NewReader("no image")); err == nil {
		h.t.Errorf("nonsense was imported: %s", out)
	}
	out, err := send(&tar)
	if err != nil || !strings.Contains(string(out), "example.org/imported:2") {
		h.t.Fatalf("import: %s: %v", out, err)
	}
	p := pod(tenant.GVisor)
	p.Name = "imported"
	p.Spec.Containers[0].Ports = nil
	p.Spec.Containers[0].Image, p.Spec.Containers[0].Args = "example.org/imported:2", nil
	h.run(p)
	list := h.mustKubectl("get", "--raw", "/api/v1/nodes/"+nodeName+"/proxy/sublet/images")
	for _, name := range []string{node.PauseImage, node.CanaryImage, "example.org/imported:2"} {
		if !strings.Contains(list, name) {
			h.t.Errorf("%s is not among the node's images: %s", name, list)
		}
	}
}

// testStrangers asks the node without the API server's certificate.
func testStrangers(h *host) {
	url := "https://" + net.JoinHostPort(wire.Node, "10250") + "/pods"
	anonymous := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	if r, err := anonymous.Get(url); err == nil {
		_ = r.Body.Close()
		h.t.Errorf("without a certificate: %s", r.Status)
	}
	config := h.admins()
	config.TLSClientConfig.Insecure, config.CAData = true, nil
	admin, err := rest.HTTPClientFor(config)
	h.must(err)
	r, err := admin.Get(url)
	h.must(err)
	defer r.Body.Close()
	if r.StatusCode != http.StatusForbidden {
		h.t.Errorf("with an administrator's certificate: %s", r.Status)
	}
	behind := "https://127.0.0.1:10250/pods"
	if r, err := admin.Get(behind); err == nil {
		defer r.Body.Close()
		if r.StatusCode != http.StatusUnauthorized {
			h.t.Errorf("past the front: %s", r.Status)
		}
	}
}

func (h *host) down(purge bool) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(h.t.Context()), patience)
	defer cancel()
	for range 2 { // the second time, nothing is there
		if err := agent.Down(ctx, agent.DownOptions{DataDir: h.dir, Purge: purge, Logger: slog.New(slog.DiscardHandler)}); err != nil {
			h.t.Errorf("down: %v", err)
		}
	}
}

// traces lists what is left of the node on the machine, besides its directory.
func (h *host) traces() []string {
	h.t.Helper()
	l := node.Layout{Data: h.dir}
	var left []string
	mounts, err := os.ReadFile("/proc/self/mounts")
	h.must(err)
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, h.dir) || strings.Contains(line, l.Run()) {
			left = append(left, "mount "+line)
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup" + l.Cgroup(), "/sys/fs/cgroup/*" + l.Cgroup(), l.Run(), "/var/lib/cni/results/" + l.Network() + "*"} {
		found, err := filepath.Glob(pattern)
		h.must(err)
		left = append(left, found...)
	}
	for _, command := range []string{"nft list tables", "ip -o link show type veth"} {
		out, err := exec.Command("sh", "-c", command).Output()
		h.must(err)
		for line := range strings.Lines(string(out)) {
			if !strings.Contains(line, ": eth0@") { // the wire itself
				left = append(left, command+": "+line)
			}
		}
	}
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	h.must(err)
	for _, p := range processes {
		argv, _ := os.ReadFile(p) // it may be gone by now
		if strings.Contains(string(argv), l.Run()) || strings.Contains(string(argv), h.dir+"/agent") {
			left = append(left, "process "+strings.ReplaceAll(string(argv), "\x00", " "))
		}
	}
	return left
}

// testDown stops the node without purging it.
func testDown(h *host) {
	h.down(false)
	if left := h.traces(); len(left) > 0 {
		h.t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
	if _, err := os.Stat(filepath.Join(h.dir, "agent/containerd/root/io.containerd.content.v1.content")); err != nil {
		h.t.Errorf("images are gone: %v", err)
	}
}

// testPurge removes a node whose agent and containerd were killed.
func testPurge(h *host) {
	h.down(true)
	left := h.traces()
	if _, err := os.Stat(filepath.Join(h.dir, "agent")); err == nil {
		left = append(left, filepath.Join(h.dir, "agent"))
	}
	if len(left) > 0 {
		h.t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
}
