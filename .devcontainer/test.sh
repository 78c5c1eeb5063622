#!/bin/sh
# Usage: .devcontainer/test.sh [CMD...]
#
# Brings the dev container up in a copy of this tree, runs CMD (make test) inside, and takes
# everything down again, whatever happened. Passes CMD's exit code on.
set -eu
. "$(dirname -- "$0")/../docker/lib.sh"
settings EXTRA_CA

readonly CLI='@devcontainers/cli@0.89.0'

have npx || die 2 "npx is not on PATH" "Install Node.js 18 or later (apt-get install npm)."
docker version >/dev/null 2>&1 || die 2 "no Docker engine answers" "Start Docker."
[ $# -gt 0 ] || set -- make test

# The dev container works as uid 1000 in a tree of that user's. Under the real build/, because
# Docker must see the same path.
make_build_dir test
make_build_dir docker
copy=$ROOT/build/test/devcontainer-$$
id=$(printf %s "$copy" | sha256 | cut -c1-10)

ca=$(ca_file)
[ -z "$ca" ] || export NODE_EXTRA_CA_CERTS="${NODE_EXTRA_CA_CERTS:-$ca}"

take_down() {
    trap '' INT TERM
    containers=$(docker ps --all --quiet --filter "label=devcontainer.local_folder=$copy" &&
        docker ps --all --quiet --filter "label=slipway.clone=$id")
    for container in $containers; do
        volumes=$(docker inspect --format \
            '{{range .Mounts}}{{if eq .Type "volume"}}{{.Name}} {{end}}{{end}}' "$container")
        image=$(docker inspect --format '{{.Config.Image}}' "$container")
        docker rm --force "$container" >/dev/null
        for volume in $volumes; do docker volume rm "$volume" >/dev/null 2>&1 || :; done
        # The one that @devcontainers/cli derives for the caller's uid.
        case $image in vsc-*) docker image rm "$image" >/dev/null 2>&1 || : ;; esac
    done
    for image in $(docker image ls --quiet --filter "label=slipway.clone=$id"); do
        docker image rm --force "$image" >/dev/null 2>&1 || :
    done
    docker network rm "slipway-$id" >/dev/null 2>&1 || :
    rm -rf "$copy"
}
trap take_down EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

devcontainer() {
    command=$1
    shift
    npx --yes "$CLI" "$command" --workspace-folder "$copy" "$@"
}

mkdir -p "$copy"
# shellcheck disable=SC2016 # expanded by the inner shell
git -C "$ROOT" ls-files --cached --others --exclude-standard -z |
    (cd "$ROOT" && xargs -0 sh -c 'for file; do [ ! -e "$file" ] || printf "%s\0" "$file"; done' sh) |
    tar -C "$ROOT" --null --files-from - --create | tar -C "$copy" --extract
git -C "$copy" init --quiet
git -C "$copy" add --all
git -C "$copy" -c user.name=Slipway -c user.email=slipway@localhost commit --quiet --message 'A copy'
[ "$(id -u)" != 0 ] || chown -R 1000:1000 "$copy"

say "devcontainer: up"
devcontainer up --log-level info >"$ROOT/build/docker/devcontainer.log" 2>&1 || {
    tail -n 15 "$ROOT/build/docker/devcontainer.log" >&2
    die 1 "the dev container did not come up; all of it: build/docker/devcontainer.log"
}
say "devcontainer: $*"
devcontainer exec "$@"
