// Package memvolumes has gVisor hold pods' volumes of memory (emptyDir, medium Memory)
// inside the sandbox: tmpfs to whoever asks, where they would else be files of the
// node's behind gVisor's gofer, which shows another kind.
//
// Flow: the kubelet mounts a tmpfs per volume, with its size, mode and group, before it
// asks for the pod's sandbox. [Sandbox] is called next and says in annotations of the
// sandbox, gVisor's mount hints, that its own tmpfs with the same properties stands for
// these volumes; [Container] repeats them for each container, as the sandbox has them.
// gVisor's shim finds the kubelet's directories by them (deploy/shim). Which volumes may
// be held so is in an annotation of the host pod, which only the syncer writes: none of
// which a container has a part alone (subPath), or whose mounts are passed on.
//
// All annotations of gVisor's that a pod has from elsewhere are dropped: nothing that a
// tenant writes is a hint. A volume that is not what it should be (no tmpfs, not empty,
// of unknown size) gets none, and is reached as before. Nothing on the node is changed.
package memvolumes
