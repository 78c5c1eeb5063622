#!/bin/sh
# Remove everything Slipway made here: what runs or lies in Docker for this clone, build/ with the
# registry, .venv* and the tools' caches. Data, code and .env stay. Asks first, or CONFIRM=1.
set -eu
. "$(dirname -- "$0")/../docker/lib.sh"

id=$(clone_id)
label=slipway.clone=$id
cd "$ROOT"
engine=
if have docker && docker version >/dev/null 2>&1; then engine=yes; fi

# In a container of this clone (the dev container) that one stays: we stand on it.
containers() {
    docker ps --all --quiet --filter "label=$label" | grep -v "^$(hostname | cut -c1-12)" || :
}

cat <<EOT
This removes, for $ROOT:
  the service, its containers, images, network and volumes
  build/ with all records, runs and registered models
  .venv* and the caches of tools
EOT
if [ "${CONFIRM:-}" != 1 ]; then
    [ -t 0 ] || die 2 "distclean removes the model registry and asks first" \
        "Run it in a terminal, or make distclean CONFIRM=1."
    printf 'Type yes to go on: '
    read -r answer || answer=
    [ "$answer" = yes ] || die 2 "distclean: not confirmed, nothing was removed"
fi

if [ -d build/service ] && [ -x .venv/bin/python ]; then
    RUNNER=venv docker/run.sh python -m scripts.down ||
        die 1 "the service could not be stopped" "End its supervisor (make status names it), then again."
fi
if [ -n "$engine" ]; then
    containers | xargs -r docker rm --force --volumes >/dev/null
    docker network ls --quiet --filter "label=$label" | xargs -r docker network rm >/dev/null || :
    # The runner's volumes carry a name only.
    docker volume ls --quiet --filter "name=^slipway-$id-" | xargs -r docker volume rm >/dev/null || :
    docker image ls --quiet --filter "label=$label" | sort -u |
        xargs -r docker image rm --force >/dev/null
else
    say "no Docker engine answers: containers and images of this clone, if there are any, stay"
fi
rm -rf build .venv .venv-az .venv-checks .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
find . \( -path ./.git -o -path ./data \) -prune -o -name __pycache__ -prune -exec rm -rf {} +
say "removed; \`make all\` starts afresh"
