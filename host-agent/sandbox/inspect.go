package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Labels by which the kubelet marks its pods in CRI
// (k8s.io/kubelet/pkg/types, KubernetesPod*Label).
const (
	labelNamespace = "io.kubernetes.pod.namespace"
	labelPod       = "io.kubernetes.pod.name"
)

// ErrNoPod says that the node has no ready sandbox for a pod.
var ErrNoPod = errors.New("no such pod runs on this node")

// Facts is what is true of a pod's sandbox: what CRI says of it, and what /proc
// says of the process that CRI names.
type Facts struct {
	// ID is the sandbox's id in CRI, Handler the runtime handler it was made with.
	ID      string `json:"id"`
	UID     string `json:"uid"`
	Handler string `json:"handler"`
	// PID is the sandbox's process on the host: runsc's sandbox under gVisor, the
	// pause container else. Exe and Argv are that process's, UIDMap its
	// /proc/PID/uid_map.
	PID    int      `json:"pid"`
	Exe    string   `json:"exe"`
	Argv   []string `json:"argv"`
	UIDMap string   `json:"uidMap"`
	// Cgroup is what CRI was told; Cgroups are the lines of /proc/PID/cgroup.
	Cgroup  string   `json:"cgroup"`
	Cgroups []string `json:"cgroups"`
	IPs     []string `json:"ips"`
}

// Runtime is the part of CRI that Inspect and Find ask.
type Runtime interface {
	ListPodSandbox(ctx context.Context, in *runtimev1.ListPodSandboxRequest, opts ...grpc.CallOption) (*runtimev1.ListPodSandboxResponse, error)
	PodSandboxStatus(ctx context.Context, in *runtimev1.PodSandboxStatusRequest, opts ...grpc.CallOption) (*runtimev1.PodSandboxStatusResponse, error)
}

// Find returns the ready sandbox of a pod, ErrNoPod when there is none.
func Find(ctx context.Context, runtime Runtime, namespace, pod string) (*runtimev1.PodSandbox, error) {
	list, err := runtime.ListPodSandbox(ctx, &runtimev1.ListPodSandboxRequest{Filter: &runtimev1.PodSandboxFilter{
		State:         &runtimev1.PodSandboxStateValue{State: runtimev1.PodSandboxState_SANDBOX_READY},
		LabelSelector: map[string]string{labelNamespace: namespace, labelPod: pod},
	}})
	if err != nil {
		return nil, fmt.Errorf("ask containerd for the sandbox of %s/%s: %w", namespace, pod, err)
	}
	var newest *runtimev1.PodSandbox
	for _, s := range list.Items {
		if newest == nil || s.CreatedAt > newest.CreatedAt {
			newest = s
		}
	}
	if newest == nil {
		return nil, fmt.Errorf("%s/%s: %w", namespace, pod, ErrNoPod)
	}
	return newest, nil
}

// Inspect returns the facts of a pod's sandbox, ErrNoPod when it has none.
func Inspect(ctx context.Context, runtime Runtime, namespace, pod string) (Facts, error) {
	s, err := Find(ctx, runtime, namespace, pod)
	if err != nil {
		return Facts{}, err
	}
	status, err := runtime.PodSandboxStatus(ctx, &runtimev1.PodSandboxStatusRequest{PodSandboxId: s.Id, Verbose: true})
	if err != nil {
		return Facts{}, fmt.Errorf("ask containerd about the sandbox of %s/%s: %w", namespace, pod, err)
	}
	// containerd's own part of the answer (internal/cri/types, SandboxInfo).
	var info struct {
		PID    int `json:"pid"`
		Config struct {
			Linux struct {
				Cgroup string `json:"cgroup_parent"`
			} `json:"linux"`
		} `json:"config"`
	}
	if err := json.Unmarshal([]byte(status.Info["info"]), &info); err != nil {
		return Facts{}, fmt.Errorf("read what containerd says of the sandbox of %s/%s: %w", namespace, pod, err)
	}
	f := Facts{ID: s.Id, UID: s.GetMetadata().GetUid(), Handler: status.Status.GetRuntimeHandler(), PID: info.PID, Cgroup: info.Config.Linux.Cgroup}
	if ip := status.Status.GetNetwork().GetIp(); ip != "" {
		f.IPs = append(f.IPs, ip)
	}
	for _, ip := range status.Status.GetNetwork().GetAdditionalIps() {
		f.IPs = append(f.IPs, ip.Ip)
	}
	return f, f.observe()
}

// observe reads the sandbox's process from /proc.
func (f *Facts) observe() error {
	if f.PID <= 0 {
		return fmt.Errorf("containerd names no process for sandbox %s", f.ID)
	}
	proc := filepath.Join("/proc", strconv.Itoa(f.PID))
	var err error
	if f.Exe, err = os.Readlink(filepath.Join(proc, "exe")); err != nil {
		return fmt.Errorf("look at the process of sandbox %s: %w", f.ID, err)
	}
	argv, err := os.ReadFile(filepath.Join(proc, "cmdline"))
	if err != nil {
		return fmt.Errorf("look at the process of sandbox %s: %w", f.ID, err)
	}
	f.Argv = strings.Split(strings.TrimRight(string(argv), "\x00"), "\x00")
	users, err := os.ReadFile(filepath.Join(proc, "uid_map"))
	if err != nil {
		return fmt.Errorf("look at the process of sandbox %s: %w", f.ID, err)
	}
	f.UIDMap = strings.TrimSpace(string(users))
	groups, err := os.ReadFile(filepath.Join(proc, "cgroup"))
	if err != nil {
		return fmt.Errorf("look at the process of sandbox %s: %w", f.ID, err)
	}
	f.Cgroups = strings.Split(strings.TrimSpace(string(groups)), "\n")
	return nil
}
