#!/usr/bin/env bash
# Builds, pinned by the go.mod of each, what Sublet is tested with: other stores, which
# ours is also measured against, and a client of tenants.
#
#   bin/peers/          etcd etcdctl kine helm
#
# Usage: peers.sh [etcd|kine|helm]...; all of them without arguments. Run by `make
# peers`. A step that was done with the same version is skipped. Works as any user with
# Go and make once the Debian packages are there: gcc for kine, whose SQLite is in C,
# and strace, with which flushes are slowed down.
set -euo pipefail
cd "$(dirname "$0")/../.."
PEERS=$PWD/bin/peers
STAMPS=$PEERS/.made
mkdir -p "$STAMPS"
export GOFLAGS="-buildvcs=false -trimpath" CGO_ENABLED=0
# shellcheck source=deploy/deps/steps.sh
. deploy/deps/steps.sh

# tool FOLDER PACKAGE NAME: bin/peers/NAME, a tool of the module in test/peers/FOLDER.
tool() { go build -C "test/peers/$1" -ldflags "-s -w" -o "$PEERS/$3" "$2"; }

etcd() {
	tool etcd go.etcd.io/etcd/server/v3 etcd
	tool etcd go.etcd.io/etcd/etcdctl/v3 etcdctl
}

helm() { tool helm helm.sh/helm/v4/cmd/helm helm; }

kine() { CGO_ENABLED=1 tool kine github.com/k3s-io/kine kine; }

GO=$(go env GOVERSION GOARCH | tr '\n' ' ')
debian_packages gcc libc6-dev strace
[ $# -gt 0 ] || set -- etcd helm kine
for peer; do
	case $peer in
	etcd) step etcd "$(digest test/peers/etcd) $GO" "$PEERS"/{etcd,etcdctl} -- etcd ;;
	helm) step helm "$(digest test/peers/helm) $GO" "$PEERS/helm" -- helm ;;
	kine) step kine "$(digest test/peers/kine) $GO" "$PEERS/kine" -- kine ;;
	*) echo "peers: $peer is none of etcd, helm and kine" >&2 && exit 2 ;;
	esac
done
