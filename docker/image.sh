#!/bin/sh
# Usage: docker/image.sh toolbox|az|dev|front [ALIAS]
#
# Prints the name of that image, slipway-STAGE:HASH, where HASH is that of everything it is made
# of, the base image included. Builds it when it is missing. ALIAS is one more name for it.
set -eu
. "$(dirname -- "$0")/lib.sh"

cd "$ROOT/docker"
stage=${1:-}
set -- "${2:-}"
case $stage in
    toolbox) inputs='locks/uv.txt locks/toolbox.txt' ;;
    az) inputs='locks/uv.txt locks/toolbox.txt locks/az.txt' ;;
    dev) inputs='locks/uv.txt locks/toolbox.txt dev-entry.sh' ;;
    front) inputs='haproxy.cfg' ;;
    *) die 2 "no such image: ${stage:-(none named)}; it is one of toolbox, az, dev, front" ;;
esac

# FORCE is about the caller's verb.
base=$(FORCE='' ./base.sh)
base_id=$(docker image inspect --format '{{.Id}}' "$base")
# shellcheck disable=SC2086 # a list of names without spaces
hash=$({
    echo "$base_id"
    cat Dockerfile fetch.sh $inputs
} | sha256 | cut -c1-12)
name=slipway-$stage:$hash

present() { docker image inspect --format '{{.Id}}' "$name" >/dev/null 2>&1; }

if ! present; then
    make_build_dir docker
    exec 7>"$ROOT/build/docker/$stage.lock"
    lock_fd 7 x 3600 || die 1 "another process has been building the $stage image for an hour"
    present || ./build.sh "$stage" . "$name"
fi
[ -z "$1" ] || docker tag "$name" "$1"
echo "$name"
