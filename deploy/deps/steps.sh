# shellcheck shell=bash
# Steps that are done once: sourced by the scripts beside it, which set STAMPS, an
# existing folder that remembers what was done.

say() { printf 'deps: %s\n' "$*"; }

# One run at a time: a second one waits and then finds everything made.
exec 9>"$STAMPS/lock"
flock -n 9 || { say "another run is at work: waiting for it"; flock 9; }

# step NAME FINGERPRINT FILES -- COMMAND...: runs COMMAND unless it was run for
# this fingerprint (a version, or a digest of sources) and all FILES are there.
step() {
	local name=$1 fingerprint=$2 files=() file begun=$SECONDS
	shift 2
	while [[ $1 != -- ]]; do files+=("$1"); shift; done
	shift
	local stamp=$STAMPS/$name
	if [[ -f $stamp && $(<"$stamp") == "$fingerprint" ]]; then
		for file in "${files[@]}"; do [[ -e $file ]] || break; done
		[[ -e $file ]] && { say "$name: there already"; return; }
	fi
	say "$name: making it ..."
	rm -f "$stamp"
	"$@"
	printf '%s' "$fingerprint" >"$stamp"
	say "$name: made in $((SECONDS - begun)) s"
}

# digest FILES AND FOLDERS: one digest of all that they contain.
digest() { find "$@" -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-32; }

# debian_packages NAME...: installs those that are missing.
debian_packages() {
	local p missing=()
	for p; do
		[[ $(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null) == installed ]] || missing+=("$p")
	done
	((${#missing[@]})) || { say "Debian packages: there already"; return; }
	say "Debian packages: installing ${missing[*]}"
	[[ $(id -u) == 0 ]] || { say "run this as root, or install them yourself"; exit 1; }
	export DEBIAN_FRONTEND=noninteractive
	{ apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >"$STAMPS/apt.log" 2>&1 ||
		{ cat "$STAMPS/apt.log"; say "apt-get failed"; exit 1; }
}
