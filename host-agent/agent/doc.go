// Package agent is what runs on every node: it brings the node up and keeps it so.
//
// Flow of [Run]:
//
//	check the machine -> containerd (adopted or started) -> its images -> which
//	sandboxes work -> front, kubelet, then, once the node has its pod range:
//	pod network, kube-proxy
//
//	agent.go    Config, Run: the order of things
//	node.go     the Node object: labels in, pod range out
//	serve.go    what the front answers itself: facts, images
//	forward.go  port-forward into gVisor sandboxes, for the front, too
//	network.go  the fence, the DNS and the CNI plugin's other end
//	down.go     Down: everything undone
//
// Goroutines: one each for containerd's watch, the front, its forwards, the kubelet, the Node
// object, kube-proxy, and the network's; the first that fails ends Run, which waits
// for all but kube-proxy (it cannot be told to end; see internal/kube). Run is
// called once in a process, since the kubelet is.
//
// Pods and containerd go on when the agent ends or is killed; the next Run takes
// them over. The agent never starts a pod outside the sandbox that its RuntimeClass
// names, and never before its fence is in the kernel.
package agent
