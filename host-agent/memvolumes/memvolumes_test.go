package memvolumes

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"sublet.dev/isolation/tenant"
)

// kubelet keeps the volumes of a pod u-1 as the kubelet does.
type kubelet struct {
	t       *testing.T
	podsDir string
}

func newKubelet(t *testing.T) kubelet {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("volumes of memory are mounts: this needs root")
	}
	return kubelet{t, t.TempDir()}
}

func (k kubelet) dir(kind, name string) string {
	k.t.Helper()
	dir := filepath.Join(k.podsDir, "u-1", "volumes", kind, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		k.t.Fatal(err)
	}
	return dir
}

// memory mounts a volume of memory of 1 MiB, for a group.
func (k kubelet) memory(name string) string {
	k.t.Helper()
	dir := k.dir(emptyDirs, name)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,mode=2777,gid=2000"); err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			k.t.Error(err)
		}
	})
	return dir
}

// pod is the pod of which the syncer names volumes, with more annotations.
func pod(names string, more map[string]string) *runtimev1.PodSandboxConfig {
	annotations := map[string]string{tenant.AnnotationMemoryVolumes: names}
	maps.Copy(annotations, more)
	return &runtimev1.PodSandboxConfig{Metadata: &runtimev1.PodSandboxMetadata{Uid: "u-1"}, Annotations: annotations}
}

// forged are hints that are none of ours.
var forged = map[string]string{
	"dev.gvisor.flag.debug": "true", "dev.gvisor.spec.mount.data.type": "bind", "dev.gvisor.spec.mount.etc.source": "/etc",
	"dev.gvisor.spec.rootfs.source": "/", "other": "kept",
}

func TestSandbox(t *testing.T) {
	k := newKubelet(t)
	k.memory("data")
	ours := map[string]string{
		tenant.AnnotationMemoryVolumes: "data", "other": "kept", "dev.gvisor.spec.mount.data.type": "tmpfs",
		"dev.gvisor.spec.mount.data.share": "pod", "dev.gvisor.spec.mount.data.options": "rw,size=1048576,mode=2777,uid=0,gid=2000",
	}
	none := map[string]string{tenant.AnnotationMemoryVolumes: "data", "other": "kept"}
	for handler, want := range map[string]map[string]string{tenant.GVisor.Handler(): ours, tenant.RuncUserNS.Handler(): none, "": none} {
		p := pod("data", forged)
		given := p.Annotations
		before := maps.Clone(given)
		Sandbox(k.podsDir, p, handler)
		if !maps.Equal(p.Annotations, want) {
			t.Errorf("handler %q: %v", handler, p.Annotations)
		}
		if !maps.Equal(given, before) {
			t.Errorf("handler %q: the kubelet's pod was changed: %v", handler, given)
		}
	}

	// A container is made as its sandbox was, whatever its pod says now.
	p := pod("data", forged)
	Container(p, ours)
	if !maps.Equal(p.Annotations, ours) {
		t.Errorf("a container gets %v", p.Annotations)
	}
	Container(p, nil)
	if !maps.Equal(p.Annotations, none) {
		t.Errorf("a container of a sandbox without hints gets %v", p.Annotations)
	}
	bare := &runtimev1.PodSandboxConfig{}
	Sandbox(k.podsDir, bare, tenant.GVisor.Handler())
	if Container(bare, nil); len(bare.Annotations) > 0 || Has(bare) || !Has(p) {
		t.Errorf("a pod without annotations has %v", bare.Annotations)
	}
}

func TestVolumesThatAreNotHeld(t *testing.T) {
	k := newKubelet(t)
	k.memory("data")
	k.dir(emptyDirs, "disk")
	k.memory(shm)
	k.memory("twice")
	k.dir("kubernetes.io~secret", "twice")
	k.memory("a.b")
	if err := os.WriteFile(filepath.Join(k.memory("used"), "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(k.memory("target"), filepath.Join(k.podsDir, "u-1", "volumes", emptyDirs, "link")); err != nil {
		t.Fatal(err)
	}
	for _, names := range []string{"", "disk", "used", "twice", "absent", "a.b", shm, "link", "*", "dat?", "../" + emptyDirs + "/data", "data/"} {
		p := pod(names+",data", nil)
		Sandbox(k.podsDir, p, tenant.GVisor.Handler())
		if len(p.Annotations) != 4 || p.Annotations["dev.gvisor.spec.mount.data.type"] != "tmpfs" {
			t.Errorf("beside a volume that is held, %q: %v", names, p.Annotations)
		}
	}
}
