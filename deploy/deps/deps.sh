#!/usr/bin/env bash
# Builds or installs, pinned (versions.sh), what a node needs besides bin/sublet:
#
#   bin/node/          containerd containerd-shim-runc-v2 ctr runc runsc containerd-shim-runsc-v1
#   bin/node/cni/      ptp loopback host-local portmap
#   bin/node/images/   pause.tar canary.tar
#   bin/kubectl
#
# A step that was done with the same version is skipped. Run by `make deps`, which
# gives K8S_VERSION and K8S_LDFLAGS; works as root on Debian 12 with Go and make.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=deploy/deps/versions.sh
. deploy/deps/versions.sh
: "${K8S_VERSION:?run this as: make deps}" "${K8S_LDFLAGS:?run this as: make deps}"

NODE=$PWD/bin/node
STAMPS=$NODE/.made
mkdir -p "$NODE/cni" "$NODE/images" "$STAMPS"
export GOFLAGS="-buildvcs=false -trimpath" CGO_ENABLED=0

# shellcheck source=deploy/deps/steps.sh
. deploy/deps/steps.sh

# install_to DIR LDFLAGS PACKAGE@VERSION...: go install into a folder.
install_to() {
	local dir=$1 ldflags=$2
	shift 2
	GOBIN=$dir go install -ldflags "-s -w $ldflags" "$@"
}

containerd() {
	local m=github.com/containerd/containerd/v2
	install_to "$NODE" "-X $m/version.Version=$CONTAINERD_VERSION" \
		$m/cmd/{containerd,containerd-shim-runc-v2,ctr}@"$CONTAINERD_VERSION"
}

runc() {
	CGO_ENABLED=1 GOBIN=$NODE go install -tags seccomp -ldflags "-s -w" "github.com/opencontainers/runc@$RUNC_VERSION"
}

runsc() {
	install_to "$NODE" "-X gvisor.dev/gvisor/runsc/version.version=release-$GVISOR_RELEASE" \
		"gvisor.dev/gvisor/runsc@$GVISOR_VERSION"
}

gvisor_shim() {
	grep -qF "gvisor.dev/gvisor $GVISOR_VERSION" deploy/shim/go.mod ||
		{ say "deploy/shim/go.mod does not ask for gVisor $GVISOR_VERSION (versions.sh)"; exit 1; }
	go build -C deploy/shim -ldflags "-s -w -X github.com/containerd/containerd/v2/version.Version=release-$GVISOR_RELEASE" \
		-o "$NODE/containerd-shim-runsc-v1" .
}

cni_plugins() {
	local m=github.com/containernetworking/plugins
	install_to "$NODE/cni" "-X $m/pkg/utils/buildversion.BuildVersion=$CNI_PLUGINS_VERSION" \
		$m/plugins/{main/ptp,main/loopback,ipam/host-local,meta/portmap}@"$CNI_PLUGINS_VERSION"
}

kubectl() {
	go build -ldflags "-s -w $K8S_LDFLAGS" -o bin/kubectl k8s.io/kubernetes/cmd/kubectl
}

# image NAME: bin/node/images/NAME.tar, sublet.dev/NAME:1, from test/images/NAME.
image() {
	go build -ldflags "-s -w" -o "$STAMPS/$1" "./test/images/$1"
	go run ./test/images/mkimage -o "$NODE/images/$1.tar" -ref "sublet.dev/$1:1" -user 65532:65532 "$STAMPS/$1"
}

GO=$(go env GOVERSION GOARCH | tr '\n' ' ')
debian_packages "${DEBIAN_PACKAGES[@]}"
step containerd "$CONTAINERD_VERSION $GO" "$NODE"/{containerd,containerd-shim-runc-v2,ctr} -- containerd
step runc "$RUNC_VERSION $GO" "$NODE/runc" -- runc
step runsc "$GVISOR_VERSION $GO" "$NODE/runsc" -- runsc
step gvisor-shim "$GVISOR_VERSION $(digest deploy/shim) $GO" "$NODE/containerd-shim-runsc-v1" -- gvisor_shim
step cni-plugins "$CNI_PLUGINS_VERSION $GO" "$NODE"/cni/{ptp,loopback,host-local,portmap} -- cni_plugins
step kubectl "$K8S_VERSION $K8S_LDFLAGS $GO" bin/kubectl -- kubectl
for i in pause canary; do
	step "image-$i" "$(digest test/images) $GO" "$NODE/images/$i.tar" -- image "$i"
done
