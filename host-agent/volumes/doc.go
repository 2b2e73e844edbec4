// Package volumes gives tenants persistent storage on a node's own disk: it is the
// provisioner of the storage class "local".
//
// The flow: the host's scheduler chooses the node of a claim's first pod; upstream's
// provisioning controller (sig-storage-lib-external-provisioner) hands the claim to
// the agent of that node; [Store] makes a volume; the PersistentVolume names a
// directory of this node, which the kubelet mounts into pods by its own `local`
// plugin. A claim that grows is followed by [Node], a claim that goes takes the
// volume with it.
//
// A volume is a file with an ext4 file system of its own, mounted through a loop
// device. That makes its size a limit that the kernel holds, and a volume that is
// full is full for its own pods alone. All of its bytes are reserved when it is made:
// what was promised is there. They read as zeros until they are written, whatever
// they held before: the host's file system sees to that for every new file. A file
// is never given to a second volume.
//
// On disk, below the store's directory:
//
//	images/NAME.tmp     being made; removed at start
//	images/NAME.new     made, its PersistentVolume may not exist yet
//	images/NAME.img     a volume; removed by Remove and by nothing else
//	mounts/NAME/data    what pods see, while it is mounted
//
// NAME is the PersistentVolume's, which upstream derives from the claim's UID: making
// a volume twice makes one. What pods see is a directory inside the file system, so
// that a volume which is not mounted has no such path, and nobody writes to the
// node's disk instead.
//
// What it never does: decide who may have how much (a tenant's quota on the host
// does), use a volume again, or remove one whose PersistentVolume was not released.
package volumes
