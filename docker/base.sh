#!/bin/sh
# Usage: docker/base.sh
#        docker/base.sh --tar FILE   makes that Debian's file system there; needs no Docker
#
# Provides the image that all others start from and prints its name: BASE_IMAGE if that is
# set, else Debian bookworm, pulled, or made on the spot by mmdebstrap where no registry
# answers. One that is already there is used as it is; FORCE=1 makes it anew.
set -eu
. "$(dirname -- "$0")/lib.sh"
settings BASE_IMAGE

# Longest wait for a pull, in seconds. A base named by the user may be large.
readonly PULL_LIMIT=20 NAMED_PULL_LIMIT=600
readonly UPSTREAM=debian:bookworm-slim

present() { docker image inspect --format '{{.Id}}' "$1" >/dev/null 2>&1; }

pull() {
    limit "$1" docker pull --quiet --platform linux/amd64 "$2" >"$log" 2>&1
}

# Its own last line says no more than that it failed.
why_bootstrap_failed() { sed -n 's/^E: //p' "$log" | head -n 1; }

# A tarball of the smallest Debian, without manuals, as Debian's own slim image is.
bootstrap() {
    set -- --variant=minbase --include=ca-certificates --architectures=amd64 \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-include=/usr/share/doc/*/copyright'
    mmdebstrap "$@" bookworm "$tar" >"$log" 2>&1
}

if [ "${1:-}" = --tar ]; then
    have mmdebstrap || die 2 "mmdebstrap is not installed" "Install it (apt-get install mmdebstrap)."
    make_build_dir docker
    log=$ROOT/build/docker/base.log tar=$2
    say "base: making it with mmdebstrap (half a minute)"
    bootstrap || die 1 "mmdebstrap failed: $(why_bootstrap_failed)"
    exit
fi

if [ -n "${BASE_IMAGE:-}" ] && [ "$BASE_IMAGE" != "$UPSTREAM" ]; then
    name=$BASE_IMAGE
else
    name=slipway-base:bookworm
fi
if [ -z "${FORCE:-}" ] && present "$name"; then
    echo "$name"
    exit
fi

make_build_dir docker
log=$ROOT/build/docker/base.log
exec 8>"$ROOT/build/docker/base.lock"
lock_fd 8 x 600 || die 1 "another process has been making the base image for 10 minutes"
if [ -z "${FORCE:-}" ] && present "$name"; then
    echo "$name"
    exit
fi

if [ "$name" != slipway-base:bookworm ]; then
    say "base: pulling $name"
    pull "$NAMED_PULL_LIMIT" "$name" || die 2 "BASE_IMAGE=$name: $(tail -n 1 "$log")" \
        "Name a Debian bookworm image that is here or can be pulled, or leave BASE_IMAGE empty."
    echo "$name"
    exit
fi

say "base: pulling $UPSTREAM"
if pull "$PULL_LIMIT" "$UPSTREAM"; then
    docker tag "$UPSTREAM" "$name"
    echo "$name"
    exit
fi
engine_problem "$log" && die 2 "no Docker engine answers" \
    "Start Docker, or use RUNNER=venv, which does without."

have mmdebstrap || die 2 "$UPSTREAM cannot be pulled and mmdebstrap is not installed" \
    "Mend either: let Docker reach a registry (or name a local image in BASE_IMAGE)," \
    "or install mmdebstrap (apt-get install mmdebstrap)."
say "base: no registry answers; making it with mmdebstrap (half a minute)"
tmp=$(mktemp -d "${TMPDIR:-/tmp}/slipway-base.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
tar=$tmp/base.tar
if ! bootstrap; then
    if [ "$(id -u)" != 0 ] && grep -qE 'newuidmap|subuid|unshare|fakechroot|chroot mode|user namespace' "$log"; then
        die 2 "mmdebstrap may not make an image as this user (build/docker/base.log)" \
            "Install uidmap (apt-get install uidmap), or run \`make base-image\` once as root."
    fi
    die 2 "mmdebstrap failed: $(why_bootstrap_failed)" \
        "All of it: build/docker/base.log. Or name a local Debian bookworm image in BASE_IMAGE."
fi
docker import --platform linux/amd64 "$tar" "$name" >"$log" 2>&1 ||
    die 1 "docker import failed: $(tail -n 1 "$log")"
give_back
echo "$name"
