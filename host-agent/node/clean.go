package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// graceful is how long containers may take to end when asked.
	graceful = 10 * time.Second
	// criLimit bounds the orderly part of stopping; what is left is killed.
	criLimit = 2 * time.Minute
	// cleanLimit bounds each part of cleaning up.
	cleanLimit = 30 * time.Second
)

// The places outside the node's own directories where upstream leaves files, by
// names that are ours: the kubelet's links to logs (pkg/kubelet/kuberuntime,
// legacyContainerLogsDir) and libcni's cache of results (libcni, CacheDir).
const (
	logLinks   = "/var/log/containers"
	cniResults = "/var/lib/cni/results"
)

// devicePlugins is the kubelet's socket for device plugins, which no option moves
// (k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1, KubeletSocket).
const devicePlugins = "/var/lib/kubelet/device-plugins/kubelet.sock"

// emptied are directories that upstream makes at fixed places, deepest first; they
// are removed when nothing is in them.
func emptied() []string {
	return []string{logLinks, cniResults, "/var/lib/cni", filepath.Dir(devicePlugins), "/var/lib/kubelet"}
}

// removeDead removes a socket that nobody listens on.
func removeDead(socket string) {
	conn, err := net.Dial("unix", socket)
	if err == nil {
		_ = conn.Close()
		return
	}
	if errors.Is(err, unix.ECONNREFUSED) {
		_ = os.Remove(socket) // left is no harm
	}
}

// Clean ends everything that runs on the node and undoes what was changed on the
// machine: containers (asked first), containerd, mounts, network namespaces,
// cgroups, kernel settings, files in the run directory. With purge it also removes
// the agent's files: images, certificates, logs of pods. The agent and its kubelet
// must not run. What is absent already is success, so Clean can be repeated.
func Clean(ctx context.Context, l Layout, purge bool, log *slog.Logger) error {
	groups, err := findCgroups()
	if err != nil {
		return err
	}
	// Going on after an error leaves less behind.
	errs := []error{stopPods(ctx, l, log), stopContainerd(ctx, l)}
	limit, cancel := context.WithTimeoutCause(ctx, cleanLimit, errors.New("processes of the node do not end"))
	defer cancel()
	errs = append(errs, groups.kill(limit, l.Cgroup()))
	errs = append(errs, unmountBelow(l.Run()), unmountBelow(l.Agent()))
	errs = append(errs, groups.remove(limit, l.Cgroup()), restoreKernel(l), removeLinks(l))
	// No pod is left, so no address is in use.
	paths := []string{l.Run(), l.IPAM(), l.Endpoints(), recordFile(l)}
	if purge {
		paths = append(paths, l.Agent(), l.Log("containerd"))
	}
	for _, p := range paths {
		if mounted, err := mountsBelow(p); err != nil || len(mounted) > 0 {
			errs = append(errs, err, fmt.Errorf("%s is kept: something is still mounted there: %v", p, mounted))
			continue
		}
		errs = append(errs, os.RemoveAll(p))
	}
	removeDead(devicePlugins)
	for _, d := range append(emptied(), filepath.Dir(l.Run())) {
		_ = os.Remove(d) // not empty: somebody else's
	}
	return errors.Join(errs...)
}

// stopPods stops and removes all pods through containerd, when it runs: containers
// are asked to end, and the CNI plugins take the network down.
func stopPods(ctx context.Context, l Layout, log *slog.Logger) error {
	p, err := find(recordFile(l))
	if errors.Is(err, errNotRunning) {
		return nil // the rest is killed and taken apart by hand
	}
	if err != nil {
		return err
	}
	defer p.close()
	conn, err := Dial(l)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, criLimit)
	defer cancel()
	client := runtimev1.NewRuntimeServiceClient(conn)
	sandboxes, err := client.ListPodSandbox(ctx, &runtimev1.ListPodSandboxRequest{})
	if err != nil {
		log.Warn("containerd does not answer: pods are killed", "err", err)
		return nil
	}
	if len(sandboxes.Items) > 0 {
		log.Info("stopping pods", "count", len(sandboxes.Items))
	}
	var wg sync.WaitGroup
	for _, s := range sandboxes.Items {
		wg.Go(func() {
			if err := stopPod(ctx, client, s.Id); err != nil {
				log.Warn("a pod was not stopped in order: it is killed", "sandbox", s.Id, "err", err)
			}
		})
	}
	wg.Wait()
	return nil
}

// stopPod asks a pod's containers to end, then removes the pod.
func stopPod(ctx context.Context, client runtimev1.RuntimeServiceClient, sandbox string) error {
	list, err := client.ListContainers(ctx, &runtimev1.ListContainersRequest{Filter: &runtimev1.ContainerFilter{
		PodSandboxId: sandbox, State: &runtimev1.ContainerStateValue{State: runtimev1.ContainerState_CONTAINER_RUNNING},
	}})
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	errs := make([]error, len(list.Containers))
	var wg sync.WaitGroup
	for i, c := range list.Containers {
		wg.Go(func() {
			_, errs[i] = client.StopContainer(ctx, &runtimev1.StopContainerRequest{ContainerId: c.Id, Timeout: int64(graceful.Seconds())})
		})
	}
	wg.Wait()
	if _, err := client.StopPodSandbox(ctx, &runtimev1.StopPodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		return errors.Join(append(errs, fmt.Errorf("stop the sandbox: %w", err))...)
	}
	if _, err := client.RemovePodSandbox(ctx, &runtimev1.RemovePodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		errs = append(errs, fmt.Errorf("remove the sandbox: %w", err))
	}
	return errors.Join(errs...)
}

// stopContainerd ends containerd when it runs.
func stopContainerd(ctx context.Context, l Layout) error {
	p, err := find(recordFile(l))
	if errors.Is(err, errNotRunning) {
		return nil
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, stopLimit)
	defer cancel()
	return errors.Join(p.stop(ctx), p.close())
}

// mountsBelow lists the mount points at and below a path, the deepest first.
func mountsBelow(path string) ([]string, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(path))
	if err != nil {
		return nil, fmt.Errorf("list mounts below %s: %w", path, err)
	}
	var points []string
	for _, m := range mounts {
		points = append(points, m.Mountpoint)
	}
	slices.SortStableFunc(points, func(a, b string) int { return len(b) - len(a) })
	return points, nil
}

// unmountBelow unmounts everything at and below a path. A mount that is still in
// use goes when its last user does.
func unmountBelow(path string) error {
	points, err := mountsBelow(path)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range points {
		err := unix.Unmount(p, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EBUSY) {
			err = unix.Unmount(p, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
		}
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", p, err))
		}
	}
	return errors.Join(errs...)
}

// removeLinks removes what upstream left outside the node's directories.
func removeLinks(l Layout) error {
	var errs []error
	ours := func(dir string, is func(name string) bool) {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("look for what is left: %w", err))
		}
		for _, e := range entries {
			if is(e.Name()) {
				errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
			}
		}
	}
	ours(logLinks, func(name string) bool {
		target, err := os.Readlink(filepath.Join(logLinks, name))
		return err == nil && strings.HasPrefix(target, l.PodLogs()+"/")
	})
	ours(cniResults, func(name string) bool { return strings.HasPrefix(name, l.Network()+"-") })
	return errors.Join(errs...)
}
