# shellcheck shell=bash disable=SC2034
# What a node is made of, pinned: the only place where these versions stand.
# kubectl and the Kubernetes libraries follow the main module's go.mod.
CONTAINERD_VERSION=v2.4.2
RUNC_VERSION=v1.5.2
# A release of gVisor and the module version of its "go" branch that it is.
GVISOR_RELEASE=20260905.0
GVISOR_VERSION=v0.0.0-20260905035102-160fafc42237
CNI_PLUGINS_VERSION=v1.9.1
# Debian packages: the kernel's tools that the agent, kube-proxy and runc use,
# what the C part of runc is compiled with, and strace, by which the tests see
# all that a store writes.
DEBIAN_PACKAGES=(ca-certificates conntrack gcc iproute2 libc6-dev libseccomp-dev
	mount nftables pkg-config procps strace util-linux)
