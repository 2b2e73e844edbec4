package memvolumes

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/util/validation"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"sublet.dev/isolation/tenant"
)

const (
	// gvisorPrefix begins the annotations that gVisor heeds.
	gvisorPrefix = "dev.gvisor."
	// hintPrefix begins its mount hints, PREFIX VOLUME.FIELD (runsc/boot, MountPrefix).
	// containerd passes on these alone (host-agent/node).
	hintPrefix = gvisorPrefix + "spec.mount."
	// shm is the name under which gVisor's shim keeps /dev/shm: no volume can have it.
	shm = "gvisorinternaldevshm"
	// emptyDirs is where the kubelet keeps a pod's volumes of this kind
	// (k8s.io/kubernetes/pkg/volume/emptydir).
	emptyDirs = "kubernetes.io~empty-dir"
)

// Sandbox gives a sandbox that is about to be made with a runtime handler the hints for
// its volumes of memory, and takes every other annotation of gVisor's from it. podsDir is
// the directory in which the kubelet keeps its pods.
func Sandbox(podsDir string, pod *runtimev1.PodSandboxConfig, handler string) {
	hints := map[string]string{}
	if handler == tenant.GVisor.Handler() {
		dir := filepath.Join(podsDir, pod.GetMetadata().GetUid(), "volumes")
		for _, name := range names(pod) {
			if options, ok := volume(dir, name); ok {
				hints[hintPrefix+name+".type"] = "tmpfs"
				hints[hintPrefix+name+".share"] = "pod" // all containers have the same files
				hints[hintPrefix+name+".options"] = options
			}
		}
	}
	replace(pod, hints)
}

// Container gives the pod with which a container is about to be created the hints that
// its sandbox was made with, of the annotations that the runtime has of the sandbox, and
// takes every other annotation of gVisor's from it.
func Container(pod *runtimev1.PodSandboxConfig, ofSandbox map[string]string) {
	hints := map[string]string{}
	for k, v := range ofSandbox {
		if strings.HasPrefix(k, hintPrefix) {
			hints[k] = v
		}
	}
	replace(pod, hints)
}

// Has says whether a pod may have volumes that its sandbox holds.
func Has(pod *runtimev1.PodSandboxConfig) bool { return len(names(pod)) > 0 }

// replace puts hints in the place of all that gVisor would heed. The kubelet's own map
// is that of its pod, and is left alone.
func replace(pod *runtimev1.PodSandboxConfig, hints map[string]string) {
	own := maps.Clone(pod.Annotations)
	maps.DeleteFunc(own, func(k, _ string) bool { return strings.HasPrefix(k, gvisorPrefix) })
	if own == nil {
		own = map[string]string{}
	}
	maps.Copy(own, hints)
	pod.Annotations = own
}

// names returns the volumes that the syncer names. They become parts of paths and of
// annotations, and are checked again where they would do harm.
func names(pod *runtimev1.PodSandboxConfig) []string {
	var found []string
	for name := range strings.SplitSeq(pod.GetAnnotations()[tenant.AnnotationMemoryVolumes], ",") {
		if name != shm && len(validation.IsDNS1123Label(name)) == 0 {
			found = append(found, name)
		}
	}
	return found
}

// volume returns the options of a tmpfs like the one that the kubelet has mounted for a
// volume, below a pod's directory of volumes.
func volume(dir, name string) (options string, ok bool) {
	path := filepath.Join(dir, emptyDirs, name)
	// gVisor's shim finds the volume by its name alone, and does without a second.
	if same, err := filepath.Glob(filepath.Join(dir, "*", name)); err != nil || len(same) != 1 || same[0] != path {
		return "", false
	}
	var fs unix.Statfs_t
	var at, above unix.Stat_t
	if unix.Statfs(path, &fs) != nil || unix.Lstat(path, &at) != nil || unix.Lstat(filepath.Dir(path), &above) != nil {
		return "", false
	}
	mounted := at.Mode&unix.S_IFMT == unix.S_IFDIR && at.Dev != above.Dev && fs.Type == unix.TMPFS_MAGIC
	if entries, err := os.ReadDir(path); err != nil || len(entries) > 0 || !mounted || fs.Blocks == 0 {
		return "", false // a pod's next sandbox must not lose what an earlier one left there
	}
	return fmt.Sprintf("rw,size=%d,mode=%o,uid=%d,gid=%d", fs.Blocks*uint64(fs.Bsize), at.Mode&0o7777, at.Uid, at.Gid), true
}
