package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"

	"sublet.dev/isolation/tenant"
)

// NodeFacts is what a node's agent says of one pod and of the fence around its
// tenant: the answer to GET /sublet/facts?namespace=&pod= at the node's kubelet
// port, which is reached through the host API.
type NodeFacts struct {
	Node    NodeState     `json:"node"`
	Sandbox *SandboxFacts `json:"sandbox"`
	Fence   *FenceFacts   `json:"fence"`
}

// NodeState is what a node's agent says of the node.
type NodeState struct {
	// Versions are those of its programs, Sandboxes says for each [worksHere] or
	// why it does not.
	Versions  map[string]string         `json:"versions"`
	Sandboxes map[tenant.Sandbox]string `json:"sandboxes"`
}

// worksHere is what an agent says of a sandbox that it tried with success.
const worksHere = "works"

// SandboxFacts is the pod's sandbox as CRI and /proc have it.
type SandboxFacts struct {
	ID string `json:"id"`
	// UID is the pod's.
	UID     string   `json:"uid"`
	Handler string   `json:"handler"`
	PID     int      `json:"pid"`
	Exe     string   `json:"exe"`
	Argv    []string `json:"argv"`
	UIDMap  string   `json:"uidMap"`
}

// FenceFacts is the tenant's fence on the node: what was rendered for it and what
// the kernel has, in the same kind of lines, and packet counters by name.
type FenceFacts struct {
	Rendered []string          `json:"rendered"`
	Enforced []string          `json:"enforced"`
	Counters map[string]uint64 `json:"counters"`
}

// deniedCounter is the counter of what the fence refused to the pod that was
// asked about.
const deniedCounter = "denied"

// NodeReader asks the agents of nodes.
type NodeReader interface {
	// Facts returns what a node says of a pod and of the fence around its
	// namespace, or an error for which apierrors.IsNotFound holds when the node
	// does not know the pod; without a pod, of the fence alone.
	Facts(ctx context.Context, node, namespace, pod string) (NodeFacts, error)
}

// Commander runs commands in canaries.
type Commander interface {
	// Run runs a command in a pod and returns what it wrote to its standard
	// output, also when the command failed.
	Run(ctx context.Context, namespace, pod string, command []string) (string, error)
}

// hostAPI reads nodes and runs commands through the host's API.
type hostAPI struct {
	config *rest.Config
	core   corev1client.CoreV1Interface
}

func newHostAPI(config *rest.Config) (*hostAPI, error) {
	core, err := corev1client.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client of the host API: %w", err)
	}
	return &hostAPI{config: config, core: core}, nil
}

// nodeTime is how long a node's agent may take to answer: one that is silent must
// not use up the time of the whole audit.
const nodeTime = 15 * time.Second

// Facts implements [NodeReader] by the node's proxy subresource.
func (h *hostAPI) Facts(ctx context.Context, node, namespace, pod string) (NodeFacts, error) {
	var facts NodeFacts
	ctx, cancel := context.WithTimeout(ctx, nodeTime)
	defer cancel()
	raw, err := h.core.RESTClient().Get().Resource("nodes").Name(node).SubResource("proxy").Suffix("sublet", "facts").
		Param("namespace", namespace).Param("pod", pod).DoRaw(ctx)
	if err != nil {
		return facts, fmt.Errorf("ask the agent on node %s: %w", node, err)
	}
	if err := json.Unmarshal(raw, &facts); err != nil {
		return facts, fmt.Errorf("read the answer of the agent on node %s: %w", node, err)
	}
	return facts, nil
}

// Run implements [Commander] by the pod's exec subresource over a WebSocket.
func (h *hostAPI) Run(ctx context.Context, namespace, pod string, command []string) (string, error) {
	url := h.core.RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Command: command, Stdout: true, Stderr: true}, scheme.ParameterCodec).URL()
	executor, err := remotecommand.NewWebSocketExecutor(h.config, "GET", url.String())
	if err != nil {
		return "", fmt.Errorf("run %q in pod %s: %w", command, pod, err)
	}
	var stdout, stderr capped
	err = executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &stdout, Stderr: &stderr})
	if err != nil {
		return stdout.String(), fmt.Errorf("run %q in pod %s: %w: %s", command, pod, err, firstLine(stderr.String()))
	}
	return stdout.String(), nil
}

// maxOutput is how much of a command's output is kept, in bytes: a canary that
// somebody took over must not fill the memory of the audit.
const maxOutput = 64 << 10

// capped keeps the first maxOutput bytes written to it.
type capped struct{ b []byte }

// Write implements io.Writer; it never fails.
func (c *capped) Write(p []byte) (int, error) {
	c.b = append(c.b, p[:min(len(p), maxOutput-len(c.b))]...)
	return len(p), nil
}

// String returns what was kept.
func (c *capped) String() string { return string(c.b) }
