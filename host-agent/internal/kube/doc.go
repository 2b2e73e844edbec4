// Package kube runs Kubernetes' own kubelet and kube-proxy inside this process. It
// is the only package of the host agent that imports k8s.io/kubernetes, and its
// exported surface shows nothing of it.
//
// Flow: [RunKubelet] reads the configuration file that host-agent/node has
// written, as the kubelet command would, and runs the kubelet until its context
// ends, with a runtime around its own that completes pods' hosts files
// (host-agent/hostsfile) and has gVisor hold volumes of memory
// (host-agent/memvolumes), and with an image service around its own that keeps
// imported images as they were imported; [RunProxy] does the same for kube-proxy with flags;
// [CleanProxy] removes the rules that kube-proxy leaves in the kernel.
//
// Both keep process-wide state (metrics, feature gates) and goroutines that
// outlive their context: a process runs each at most once and then exits. The
// package never handles signals and never configures logging.
package kube
