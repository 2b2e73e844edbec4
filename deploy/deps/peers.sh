#!/usr/bin/env bash
# Builds, pinned by the go.mod of each, what Sublet's storage is tested on and
# measured against:
#
#   bin/peers/          etcd etcdctl
#
# A step that was done with the same version is skipped. Run by `make peers`; works
# as any user with Go and make.
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

GO=$(go env GOVERSION GOARCH | tr '\n' ' ')
step etcd "$(digest test/peers/etcd) $GO" "$PEERS"/{etcd,etcdctl} -- etcd
