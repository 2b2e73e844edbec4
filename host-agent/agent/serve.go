package agent

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"

	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"sublet.dev/host-agent/internal/kube"
	"sublet.dev/host-agent/netpol"
	"sublet.dev/host-agent/node"
	"sublet.dev/host-agent/sandbox"
	"sublet.dev/isolation/tenant"
)

// facts is the answer to GET /sublet/facts.
type facts struct {
	Node nodeFacts `json:"node"`
	// Sandbox is about the pod that was asked about; none without one.
	Sandbox *sandbox.Facts `json:"sandbox,omitempty"`
	// Fence is that around the namespace that was asked about; none without one.
	Fence *netpol.Facts `json:"fence,omitempty"`
}

// nodeFacts is what is true of the node.
type nodeFacts struct {
	Name     string            `json:"name"`
	Machine  node.Machine      `json:"machine"`
	Versions map[string]string `json:"versions"`
	// Sandboxes says "works", or why not.
	Sandboxes map[tenant.Sandbox]string `json:"sandboxes"`
}

// handle answers the requests that are the agent's own.
func (a *agent) handle(w http.ResponseWriter, r *http.Request) bool {
	switch {
	case r.URL.Path == "/sublet/facts" && r.Method == http.MethodGet:
		a.serveFacts(w, r)
	case r.URL.Path == "/sublet/images" && r.Method == http.MethodGet:
		images, err := node.Images(r.Context(), a.layout)
		reply(w, images, err)
	case r.URL.Path == "/sublet/images" && r.Method == http.MethodPost:
		images, err := node.Import(r.Context(), a.layout, r.Body)
		if err == nil {
			a.Logger.Info("images imported", "images", images)
		}
		reply(w, images, err)
	case r.URL.Path == "/sublet/images" && r.Method == http.MethodDelete:
		name := r.URL.Query().Get("name")
		err := node.Remove(r.Context(), a.layout, name)
		if err == nil {
			a.Logger.Info("image removed", "name", name)
		}
		reply(w, []node.Image{}, err)
	case strings.HasPrefix(r.URL.Path, "/sublet/"):
		http.Error(w, "the agent serves GET /sublet/facts, and GET, POST and DELETE /sublet/images", http.StatusNotFound)
	case strings.HasPrefix(r.URL.Path, forwardPath):
		return a.serveForward(w, r)
	default:
		return false
	}
	return true
}

// reply writes v as JSON, or err: 404 for what is not here, 422 otherwise,
// which API clients do not repeat.
func reply(w http.ResponseWriter, v any, err error) {
	if err != nil {
		code := http.StatusUnprocessableEntity
		if errors.Is(err, sandbox.ErrNoPod) || errors.Is(err, node.ErrNotImported) {
			code = http.StatusNotFound
		}
		http.Error(w, err.Error(), code)
		return
	}
	raw, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(raw) // the caller went away
}

func (a *agent) serveFacts(w http.ResponseWriter, r *http.Request) {
	f := facts{Node: nodeFacts{Name: a.NodeName, Machine: a.machine, Versions: a.versions, Sandboxes: map[tenant.Sandbox]string{}}}
	for s, err := range a.offer {
		f.Node.Sandboxes[s] = "works"
		if err != nil {
			f.Node.Sandboxes[s] = err.Error()
		}
	}
	namespace, pod := r.URL.Query().Get("namespace"), r.URL.Query().Get("pod")
	if pod != "" {
		s, err := sandbox.Inspect(r.Context(), a.runtime, namespace, pod)
		if err != nil {
			reply(w, nil, err)
			return
		}
		f.Sandbox = &s
	}
	if namespace != "" {
		fence, err := a.net.facts(r.Context(), namespace, pod)
		if err != nil {
			reply(w, nil, err)
			return
		}
		f.Fence = &fence
	}
	reply(w, f, nil)
}

// versions asks the node's parts for their versions; one that does not say is
// left out.
func versions(ctx context.Context, l node.Layout, runtime runtimev1.RuntimeServiceClient) map[string]string {
	v := map[string]string{"kubelet": kube.Version()}
	if r, err := runtime.Version(ctx, &runtimev1.VersionRequest{}); err == nil {
		v["containerd"] = r.RuntimeVersion
	}
	for _, name := range []string{"runc", "runsc"} {
		out, err := exec.CommandContext(ctx, filepath.Join(l.Bin, name), "--version").Output()
		first, _, _ := strings.Cut(string(out), "\n")
		if fields := strings.Fields(first); err == nil && len(fields) == 3 {
			v[name] = fields[2]
		}
	}
	return v
}
