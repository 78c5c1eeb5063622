#!/bin/sh
# On the host, before the dev container is made: its image, the clone's network, and the CA bundle
# where the container finds it. The image is built here and not by the editor because what a
# company's network needs reaches it as secrets.
set -eu
. "$(dirname -- "$0")/../docker/lib.sh"
settings EXTRA_CA

"$ROOT/docker/image.sh" dev slipway-dev:current
network=slipway-$(clone_id)
docker network inspect "$network" >/dev/null 2>&1 ||
    docker network create --label "slipway.clone=$(clone_id)" "$network" >/dev/null

make_build_dir runner
ca=$(ca_file)
cat "${ca:-/dev/null}" >"$ROOT/build/runner/ca.pem"
give_back
