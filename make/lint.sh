#!/bin/sh
# Everything `make lint` checks, in the toolbox: all checks run, and the end names those that failed.
set -u
failed=

# check NAME COMMAND...
check() {
    name=$1
    shift
    printf '▸ %s\n' "$name"
    "$@" || failed="$failed $name"
}

# Our own files with that name, each on a line.
ours() {
    find . \( -name '.?*' ! -name .ci ! -name .devcontainer ! -name .github ! -name .pipelines -o \
        -path ./build -o -name node_modules -o -name __pycache__ \) -prune -o -type f -name "$1" -print
}

# each COMMAND... : on the files whose names come on standard input.
each() { tr '\n' '\0' | xargs -0 -r "$@"; }

shell() {
    {
        ours '*.sh'
        [ ! -e .ci/run ] || echo .ci/run
    } | each shellcheck --external-sources --source-path=SCRIPTDIR
}
dockerfiles() { ours 'Dockerfile*' | each hadolint; }
schemas() { ours '*.schema.json' | each check-jsonschema --check-metaschema --quiet; }
# Whatever JSON it is, it must be JSON.
json() {
    schema=$(mktemp)
    echo '{}' >"$schema"
    ours '*.json' | each check-jsonschema --quiet --schemafile "$schema"
    status=$?
    rm -f "$schema"
    return $status
}

check black python -m black --check --quiet --diff .
check ruff python -m ruff check --quiet .
check mypy python -m mypy
check imports lint-imports
check shellcheck shell
check hadolint dockerfiles
check schemas schemas
check json json

[ -z "$failed" ] || {
    printf 'error: these found something:%s\n  mend: make format, for what is only form\n' "$failed" >&2
    exit 1
}
