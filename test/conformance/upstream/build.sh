#!/usr/bin/env bash
# Builds what upstream's conformance suite runs with, from the modules that
# binaries/go.mod pins and from Debian packages:
#
#   bin/conformance/            e2e.test ginkgo
#   bin/conformance/images/     the images that [Conformance] tests name
#
# Nothing is fetched from an image registry: the servers are built from upstream's
# sources, what stands around them is Debian's. A step that was done with the same
# sources is skipped. Run by `make conformance`, which gives K8S_LDFLAGS; needs root.
set -euo pipefail
cd "$(dirname "$0")/../../.."
: "${K8S_LDFLAGS:?run this as: make conformance}"
HERE=test/conformance/upstream
OUT=$PWD/bin/conformance
STAMPS=$OUT/.made
mkdir -p "$OUT/images" "$STAMPS"
export GOFLAGS="-buildvcs=false -trimpath" CGO_ENABLED=0
# shellcheck source=deploy/deps/steps.sh
. deploy/deps/steps.sh

suite() {
	go test -C $HERE/binaries -c -ldflags "-s -w $K8S_LDFLAGS" -o "$OUT/e2e.test" k8s.io/kubernetes/test/e2e
}

# tool PACKAGE: bin/conformance/<its last part>.
tool() { go build -C $HERE/binaries -ldflags "-s -w" -o "$OUT/" "$1"; }

# root NAME PACKAGE...: a tar of Debian packages, unpacked and not configured, with
# busybox for every command that they lack. What a Dockerfile would add is in hook.sh.
root() {
	local name=$1
	shift
	mmdebstrap --quiet --mode=root --variant=extract --format=tar --skip=output/dev \
		--include="busybox-static $*" --extract-hook="$PWD/$HERE/hook.sh"' "$1"' bookworm "$STAMPS/$name.tar"
}

# image REFERENCE ARGUMENT...: one archive of an image; see mkimage for the arguments.
image() {
	local reference=$1 file
	file=$(basename "${reference/:/-}")
	shift
	"$STAMPS/mkimage" -o "$OUT/images/$file.tar" -ref "$reference" -env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

images() {
	local e2e=registry.k8s.io/e2e-test-images source version
	source=$(go list -C $HERE/binaries -m -f '{{.Dir}}' k8s.io/kubernetes)/test/images
	rm -f "$OUT"/images/*
	go build -o "$STAMPS/mkimage" ./test/images/mkimage
	go build -ldflags "-s -w" -o "$STAMPS/pause" ./test/images/pause
	chmod u+s "$OUT/nonewprivs"
	for version in 2.55 2.66.1; do
		image $e2e/agnhost:$version -base "$STAMPS/tools.tar" -cmd pause "$OUT/agnhost" \
			"$source/agnhost/porter/localhost.crt=/localhost.crt" "$source/agnhost/porter/localhost.key=/localhost.key"
	done
	for picture in kitten nautilus; do
		image $e2e/$picture:1.8 -base "$STAMPS/tools.tar" -cmd test-webserver "$OUT/agnhost" \
			"$source/$picture/html/$picture.jpg=/$picture.jpg" "$source/$picture/html/data.json=/data.json"
	done
	image $e2e/busybox:1.37.0-2 -base "$STAMPS/busybox.tar" -cmd sh
	image $e2e/glibc-dns-testing:2.1.1 -base "$STAMPS/tools.tar" -cmd bash
	image $e2e/nonroot:1.5 -base "$STAMPS/busybox.tar" -user 1234 -cmd sh
	image $e2e/nonewprivs:1.4 -base "$STAMPS/busybox.tar" -cmd nnp "$OUT/nonewprivs=/usr/local/bin/nnp"
	image $e2e/sample-apiserver:1.29.2 "$OUT/sample-apiserver"
	for version in 1.27.0-2 1.28.0-2; do
		image $e2e/nginx:$version -base "$STAMPS/nginx.tar" -cmd nginx -cmd -g -cmd "daemon off;"
	done
	image registry.k8s.io/etcd:3.7.0-0 -base "$STAMPS/busybox.tar" -cmd etcd \
		"bin/peers/etcd=/usr/local/bin/etcd" "bin/peers/etcdctl=/usr/local/bin/etcdctl"
	image registry.k8s.io/pause:3.10.2 -user 65535:65535 "$STAMPS/pause"
}

GO=$(go env GOVERSION GOARCH | tr '\n' ' ')
PINS=$(digest $HERE/binaries)
debian_packages mmdebstrap
step e2e.test "$PINS $K8S_LDFLAGS $GO" "$OUT/e2e.test" -- suite
for p in k8s.io/kubernetes/test/images/{agnhost,nonewprivs} k8s.io/sample-apiserver github.com/onsi/ginkgo/v2/ginkgo; do
	step "$(basename $p)" "$PINS $GO" "$OUT/$(basename $p)" -- tool $p
done
ROOTS=$(digest $HERE/build.sh $HERE/hook.sh)
step busybox "$ROOTS" "$STAMPS/busybox.tar" -- root busybox bash
step tools "$ROOTS" "$STAMPS/tools.tar" -- root tools bash bind9-dnsutils curl iperf iproute2 libc-bin netcat-openbsd socat
step nginx "$ROOTS" "$STAMPS/nginx.tar" -- root nginx nginx-light
step images "$PINS $ROOTS $(digest test/images test/peers/etcd) $GO" "$OUT"/images/{pause-3.10.2,agnhost-2.66.1}.tar -- images
