#!/usr/bin/env bash
# The quickstart told by itself: one machine, two customers, a cluster for each.
#
# It runs as root in a network namespace and a data directory of its own, leaves
# the machine as it found it (also when it fails), and ends with the exit code 1
# as soon as something is not as it says.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly NETNS=sublet-demo
export SUBLET_DATA_DIR=${SUBLET_DATA_DIR:-/var/lib/sublet-demo}
export PATH="$PWD/bin:$PATH"
log="$SUBLET_DATA_DIR.log"

# --- a machine of its own -----------------------------------------------------

if [ "${1:-}" != inside ]; then
	[ "$(id -u)" = 0 ] || { echo "demo: containers need root: run it with sudo" >&2; exit 1; }
	clean() { ip netns del $NETNS 2>/dev/null || true; }
	clean
	trap clean EXIT
	ip netns add $NETNS
	ip -n $NETNS link set lo up
	ip -n $NETNS link add eth0 type veth peer name wire
	ip -n $NETNS addr add 10.77.0.2/24 dev eth0
	ip -n $NETNS link set eth0 up
	ip -n $NETNS link set wire up
	ip -n $NETNS route add default via 10.77.0.1
	# not `ip netns exec`: that hides the cgroups
	nsenter --net=/run/netns/$NETNS "$0" inside
	exit
fi

# --- how it talks -------------------------------------------------------------

started=$SECONDS
step() { printf '\n\033[1m[%3ds] %s\033[0m\n' $((SECONDS - started)) "$*"; }
say() { printf '       %s\n' "$*"; }
run() { printf '     $ %s\n' "$*"; "$@" 2>&1 | sed 's/^/       /'; }
die() { printf '\ndemo: %s\n' "$*" >&2; exit 1; }
as() { local tenant=$1; shift; sublet connect "$tenant" -- "$@"; }
# from TENANT COMMAND...: run a command inside that tenant's web application
from() { local tenant=$1; shift; as "$tenant" kubectl exec deploy/web -- "$@"; }
host() { kubectl --kubeconfig "$SUBLET_DATA_DIR/admin.kubeconfig" "$@"; }

up=
finish() {
	local code=$?
	trap - EXIT
	[ $code = 0 ] || { printf '\n--- the end of %s ---\n' "$log"; tail -n 30 "$log"; }
	[ -z "$up" ] || kill -INT "$up" 2>/dev/null || true
	[ -z "$up" ] || wait "$up" 2>/dev/null || true
	sublet down --purge >>"$log" 2>&1 || code=1
	if [ $code = 0 ]; then rm -f "$log"; else printf 'demo: the whole log is %s\n' "$log" >&2; fi
	exit $code
}
trap finish EXIT

# --- the story ----------------------------------------------------------------

step "Start Sublet: host control plane, front door, cell and agent"
sublet down --purge >"$log" 2>&1 || true
sublet up --node-ip 10.77.0.2 >"$log" 2>&1 &
up=$!
until grep -q '^Sublet is ready' "$log"; do
	kill -0 $up 2>/dev/null || die "sublet up ended; see below"
	read -rt 0.2 <> <(:) || true
done
sed -n '/^Sublet is ready/,$p' "$log" | grep -v '^{\|^time=' | sed 's/^/       /'
run sublet image import bin/images/quickstart.tar

step "Onboard two customers"
run sublet create blue --wait
run sublet create green --wait
run sublet list

step "Each deploys the same application under the same names"
for t in blue green; do
	run as $t kubectl apply -f examples/quickstart/quickstart.yaml
done
for t in blue green; do
	as $t kubectl rollout status deployment/web --timeout=120s >/dev/null
	as $t kubectl wait --for=condition=Complete job/first-visits --timeout=120s >/dev/null
done
run as blue kubectl get pods,services -o wide

step "It answers by its Service's name, from inside"
run from blue /app visit http://web.default.svc.cluster.local/
run from green /app visit http://web/

step "It runs in a sandbox: the kernel in there is gVisor's, not this machine's"
say "this machine: $(uname -sr)"
run from blue /app uname
run from blue /app dmesg

step "Green cannot reach blue; blue can"
pod=$(as blue kubectl get pod -l app=web -o jsonpath='{.items[0].status.podIP}')
service=$(as blue kubectl get service web -o jsonpath='{.spec.clusterIP}')
for address in "$pod:8080" "$service:80"; do
	run from blue /app dial "$address"
	if from green /app dial "$address" >/dev/null 2>&1; then die "green reached $address of blue"; fi
	say "green -> $address: no answer, as it should be"
done
[ "$(as green kubectl get pods -A -o name | sort)" != "$(as blue kubectl get pods -A -o name | sort)" ] ||
	die "both tenants list the same pods"
say "and each sees only its own pods"

step "Audit: is each tenant fenced, and how do we know?"
run sublet audit

step "Both customers leave"
run sublet delete blue --wait
run sublet delete green --wait
left=$(host get namespaces,virtualclusters,clusterroles,clusterrolebindings -o name | grep -E 'sublet-(blue|green)-|/(blue|green)$' || true)
[ -z "$left" ] || die "left on the host: $left"
[ -z "$(ls "$SUBLET_DATA_DIR/server/tenants")" ] || die "files of a tenant are left"
say "no host object, no file is left of them"

step "Stop"
kill -INT $up
wait $up || die "sublet up did not end well"
up=
run sublet down --purge
[ ! -e "$SUBLET_DATA_DIR" ] || die "$SUBLET_DATA_DIR is left"
if grep -q "$SUBLET_DATA_DIR" /proc/mounts; then die "mounts are left"; fi
if nft list tables | grep -qE 'sublet|kube-proxy'; then die "nft tables are left"; fi
say "nothing is left of Sublet on this machine"
printf '\nThe demo took %d s.\n' $((SECONDS - started))
