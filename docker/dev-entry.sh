#!/bin/sh
# Entry point of the dev container, as root. Lets the user slipway at the Docker socket, joins
# the clone's network, notes it for docker/run.sh, and then runs CMD.
set -eu

socket=/var/run/docker.sock
if [ -S "$socket" ]; then
    gid=$(stat -c %g "$socket")
    getent group "$gid" >/dev/null || groupadd --gid "$gid" docker-host
    usermod --append --groups "$(getent group "$gid" | cut -d: -f1)" slipway
fi
if [ -n "${SLIPWAY_WORKSPACE:-}" ] && [ -S "$socket" ]; then
    network=slipway-$(printf %s "$SLIPWAY_WORKSPACE" | sha256sum | cut -c1-10)
    docker network connect "$network" "$(hostname)" && echo "$network" >/run/slipway-network
fi
exec "$@"
