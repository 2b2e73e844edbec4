package kube

import (
	"context"
	"errors"
	"path/filepath"

	cri "k8s.io/cri-api/pkg/apis"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/kubernetes/pkg/kubelet"
	"k8s.io/kubernetes/pkg/kubelet/kubeletconfig"

	"sublet.dev/host-agent/hostsfile"
)

// completeHosts has pods' hosts files completed before containers are created: it puts a
// runtime of ours around the one that the kubelet calls. The kubelet connects to its
// runtime by itself while it starts; the last of its dependencies that it calls before
// it gives the runtime away is the one that sets OOM scores, and that is the seam.
// Should upstream move it, unready is called, or test/e2e's TestFilesOfPods fails.
func (k Kubelet) completeHosts(deps *kubelet.Dependencies, unready func(error)) {
	next, pods := deps.OOMAdjuster.ApplyOOMScoreAdj, filepath.Join(k.RootDir, kubeletconfig.DefaultKubeletPodsDirName)
	deps.OOMAdjuster.ApplyOOMScoreAdj = func(pid, score int) error {
		if deps.RemoteRuntimeService == nil {
			unready(errors.New("the kubelet has no runtime yet: pods would have no full names"))
			return nil
		}
		deps.RemoteRuntimeService = completing{deps.RemoteRuntimeService, pods}
		return next(pid, score)
	}
}

// completing is a runtime whose pods have their full names.
type completing struct {
	cri.RuntimeService
	podsDir string
}

// CreateContainer creates a container once the hosts file of its pod is complete.
func (r completing) CreateContainer(ctx context.Context, sandboxID string, container *runtimev1.ContainerConfig, pod *runtimev1.PodSandboxConfig) (string, error) {
	if err := hostsfile.Complete(r.podsDir, pod, container); err != nil {
		return "", err
	}
	return r.RuntimeService.CreateContainer(ctx, sandboxID, container, pod)
}
