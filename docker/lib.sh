# shellcheck shell=sh
# What the scripts of this room share; sourced, never run.
#
# ROOT is the tree's absolute path, ID the short name derived from it that container,
# network and volume names carry.

ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
. "$ROOT/make/lock-fd.sh"

say() { printf '%s\n' "$*" >&2; }

# die CODE LINE...: an error is one line naming the thing and one naming the mend.
die() {
    code=$1
    shift
    printf 'error: %s\n' "$1" >&2
    shift
    for line in "$@"; do printf '  %s\n' "$line" >&2; done
    exit "$code"
}

have() { command -v "$1" >/dev/null 2>&1; }

# sha256 of standard input in hex.
sha256() {
    if have sha256sum; then sha256sum; else shasum -a 256; fi | cut -d' ' -f1
}

# settings NAME...: sets shell variables from .env and the layers above and below it.
settings() { eval "$(cd "$ROOT" && make/env.sh get "$@")"; }

clone_id() { printf %s "$ROOT" | sha256 | cut -c1-10; }

# limit SECONDS CMD...: ends CMD after that time.
limit() {
    if have timeout; then
        timeout "$@"
    else
        perl -e 'alarm shift; exec @ARGV or exit 127' "$@"
    fi
}

owner_uid() { stat -c %u "$1" 2>/dev/null || stat -f %u "$1"; }
owner_gid() { stat -c %g "$1" 2>/dev/null || stat -f %g "$1"; }

# make_build_dir [NAME]: build/NAME, owned by the tree's owner also when root calls.
make_build_dir() {
    mkdir -p "$ROOT/build/${1:-}" || die 1 "cannot create $ROOT/build/${1:-}"
    give_back
}

# What root made in build/ must stay writable for the tree's owner, whom the runner runs as.
give_back() {
    [ "$(id -u)" = 0 ] || return 0
    tree_uid=$(owner_uid "$ROOT")
    [ "$tree_uid" != 0 ] || return 0
    find "$ROOT/build" ! -user "$tree_uid" -exec chown -h "$tree_uid:$(owner_gid "$ROOT")" {} +
}

# engine_problem FILE: what a Docker client wrote there means that no engine can be used.
engine_problem() {
    grep -qiE 'cannot connect to the docker daemon|permission denied.*(docker|connect)|is the docker daemon running|error during connect|failed to connect to the docker|dial unix|connection refused' "$1"
}

# The CA bundle that connections from here need, or nothing: EXTRA_CA, else what the caller's
# own tools already use.
ca_file() {
    ca=${EXTRA_CA:-}
    if [ -n "$ca" ]; then
        case $ca in /*) ;; *) ca=$ROOT/$ca ;; esac
        [ -f "$ca" ] && [ -r "$ca" ] ||
            die 2 "EXTRA_CA=$EXTRA_CA: no such file, or it cannot be read" "Name a file of PEM certificates."
        [ ! -s "$ca" ] || echo "$ca"
        return
    fi
    for ca in "${SSL_CERT_FILE:-}" "${REQUESTS_CA_BUNDLE:-}"; do
        if [ -f "$ca" ]; then
            echo "$ca"
            return
        fi
    done
}
