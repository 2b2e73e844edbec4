package e2e_test

import (
	"strconv"
	"strings"
	"testing"

	"sublet.dev/test/machine"
)

// inMemory has a volume of memory that all its containers share, one of which a container
// has a part, and one on disk. Its author would like gVisor to be told otherwise.
const inMemory = `
apiVersion: v1
kind: Pod
metadata:
  name: memory
  annotations:
    dev.gvisor.flag.debug: "true"
    dev.gvisor.spec.mount.disk.type: tmpfs
    dev.gvisor.spec.mount.disk.share: pod
    dev.gvisor.spec.mount.disk.options: rw
    dev.gvisor.spec.mount.mem.options: "rw,size=100m"
    sublet.dev/memory-volumes: disk,part
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {runAsNonRoot: true, runAsUser: 65534, fsGroup: 2000}
  initContainers:
  - {name: before, image: "sublet.dev/hostile:1", imagePullPolicy: Never, args: [links, /mem], volumeMounts: [{name: mem, mountPath: /mem}]}
  containers:
  - name: a
    image: sublet.dev/hostile:1
    imagePullPolicy: Never
    args: [wait]
    volumeMounts: [{name: mem, mountPath: /mem}, {name: part, mountPath: /part}, {name: disk, mountPath: /disk}]
  - name: b
    image: sublet.dev/hostile:1
    imagePullPolicy: Never
    args: [wait]
    volumeMounts: [{name: mem, mountPath: /mem, readOnly: true}, {name: part, mountPath: /part, subPath: sub}]
  volumes:
  - {name: mem, emptyDir: {medium: Memory, sizeLimit: 8Mi}}
  - {name: part, emptyDir: {medium: Memory, sizeLimit: 8Mi}}
  - {name: disk, emptyDir: {}}
`

// tmpfsKind is what statfs(2) calls a tmpfs.
const tmpfsKind = "0x1021994"

// memoryVolumes looks at the volumes of a pod from its containers: gVisor's sandbox holds
// the one that may be held so, as the node would.
func memoryVolumes(t *testing.T, name string, gvisor bool) {
	t.Helper()
	ready(t, name, "memory")
	hostile := func(container string, args ...string) machine.Result {
		return machine.TryKubectl(t, name, append([]string{"exec", "memory", "-c", container, "--", "/hostile"}, args...)...)
	}
	for _, container := range []string{"a", "b"} {
		if r := hostile(container, "volume", "/mem"); r.Stdout != tmpfsKind+" 8388608 3777 2000\n" {
			t.Errorf("%s: a volume of memory with 8 MiB is %s", container, r)
		}
		must(t, hostile(container, "has", "/mem/inside/own")) // of the init container
	}
	filled := hostile("a", "fill", "/mem/full")
	if size, err := strconv.Atoi(strings.TrimSpace(filled.Stdout)); err != nil || size < 7<<20 || size > 8<<20 {
		t.Errorf("a volume of 8 MiB has room for %s", filled)
	}
	must(t, hostile("b", "has", "/mem/full"))
	if r := hostile("b", "fill", "/mem/inside/own"); r.Code == 0 || !strings.Contains(r.Stderr, "read-only") {
		t.Errorf("a container writes what it has to read: %s", r)
	}
	must(t, hostile("a", "has", "/part/sub")) // what the other has at /part
	if !gvisor {
		return
	}
	for _, volume := range []string{"/part", "/disk"} {
		if r := hostile("a", "volume", volume); r.Code != 0 || strings.Contains(r.Stdout, tmpfsKind) {
			t.Errorf("gVisor holds %s: %s", volume, r)
		}
	}
	namespace := strings.TrimSpace(machine.Host(t, "get", "virtualcluster", name, "-o", "jsonpath={.status.namespace}"))
	host := machine.Host(t, "get", "pods", "-n", namespace, "-o", "json")
	if !strings.Contains(host, `"sublet.dev/memory-volumes": "mem"`) || strings.Contains(host, "dev.gvisor.") {
		t.Errorf("the host pods: %s", host)
	}
}
