// Package podnet joins pods to the fence: it knows every network endpoint of the
// node, and makes sure that none exists before the kernel has its rules.
//
// The flow: containerd calls the CNI plugins for a new sandbox; the last of them is
// ours ([PluginMain], the sublet binary under the name sublet-cni). It tells the
// agent over a Unix socket which interface and addresses the pod got and returns
// only when the agent says that the fence is in the kernel. The agent's side is
// [Server]: it writes the endpoint to disk ([Registry]) and asks the [Fence] to make
// it true. Containers start after the plugins, so the rules are there before a
// pod's first instruction. When the agent does not answer or does not know the
// tenant, the plugin fails, and the kubelet tries again later: no fence, no pod.
//
//	plugin.go    the CNI side
//	server.go    the agent's side of the socket
//	registry.go  the endpoints of the node, one file each, so that an agent that
//	             starts again knows those that it finds
//
// The package decides nothing about who may talk to whom, and never configures an
// interface: that is the fence's and the other plugins' work.
package podnet
