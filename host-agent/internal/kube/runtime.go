package kube

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	cri "k8s.io/cri-api/pkg/apis"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/kubernetes/pkg/kubelet"
	"k8s.io/kubernetes/pkg/kubelet/kubeletconfig"

	"sublet.dev/host-agent/hostsfile"
	"sublet.dev/host-agent/memvolumes"
)

// wrapRuntime has pods completed before the runtime makes them, and imported images
// kept: it puts a runtime and an image service of ours around those that the kubelet
// calls. The kubelet connects to its runtime by itself while it starts; the last of its
// dependencies that it calls before it gives the runtime away is the one that sets OOM
// scores, and that is the seam. Should upstream move it, unready is called, or
// test/e2e's TestFilesOfPods and TestImportedImages fail.
func (k Kubelet) wrapRuntime(deps *kubelet.Dependencies, unready func(error)) {
	next, pods := deps.OOMAdjuster.ApplyOOMScoreAdj, filepath.Join(k.RootDir, kubeletconfig.DefaultKubeletPodsDirName)
	deps.OOMAdjuster.ApplyOOMScoreAdj = func(pid, score int) error {
		if deps.RemoteRuntimeService == nil || deps.RemoteImageService == nil {
			unready(errors.New("the kubelet has no runtime yet: pods would have no full names"))
			return nil
		}
		deps.RemoteRuntimeService = completing{deps.RemoteRuntimeService, pods}
		deps.RemoteImageService = keeping{deps.RemoteImageService, k.ImportedID}
		return next(pid, score)
	}
}

// completing is a runtime whose pods have their full names, and whose gVisor sandboxes
// hold their pods' volumes of memory.
type completing struct {
	cri.RuntimeService
	podsDir string
}

// RunPodSandbox makes a sandbox that is told which volumes it holds, and nothing else.
func (r completing) RunPodSandbox(ctx context.Context, pod *runtimev1.PodSandboxConfig, handler string) (string, error) {
	memvolumes.Sandbox(r.podsDir, pod, handler)
	return r.RuntimeService.RunPodSandbox(ctx, pod, handler)
}

// CreateContainer creates a container once the hosts file of its pod is complete, with
// the volumes that its sandbox holds, from images by the runtime's references.
func (r completing) CreateContainer(ctx context.Context, sandboxID string, container *runtimev1.ContainerConfig, pod *runtimev1.PodSandboxConfig) (string, error) {
	if err := hostsfile.Complete(r.podsDir, pod, container); err != nil {
		return "", err
	}
	var ofSandbox map[string]string
	if memvolumes.Has(pod) {
		sandbox, err := r.PodSandboxStatus(ctx, sandboxID, false)
		if err != nil {
			return "", fmt.Errorf("ask for the volumes that sandbox %s holds: %w", sandboxID, err)
		}
		ofSandbox = sandbox.GetStatus().GetAnnotations()
	}
	memvolumes.Container(pod, ofSandbox)
	forRuntime(container)
	return r.RuntimeService.CreateContainer(ctx, sandboxID, container, pod)
}
