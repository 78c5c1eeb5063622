#!/bin/sh
# Usage: docker/lock.sh [NAME...]
#
# Compiles docker/locks/NAME.in to NAME.txt with hashes (all of them by default), and for the
# peers of `make bench` benchmarks/locks/NAME.in.
# Pins already in a NAME.txt are kept where they still fit; UPGRADE=1 takes the newest.
set -eu
cd "$(dirname "$0")/locks"

compile() {
    name=$1
    shift
    [ -z "${UPGRADE:-}" ] || set -- "$@" --upgrade
    printf 'lock: %s\n' "$name" >&2
    # Into a copy, so that an interrupted run leaves the lock as it was.
    cp "$name.txt" "$name.txt.new" 2>/dev/null || :
    uv pip compile "$name.in" --output-file "$name.txt.new" --quiet \
        --generate-hashes --no-emit-index-url --no-emit-find-links \
        --python-version 3.11 --python-platform x86_64-unknown-linux-gnu \
        --custom-compile-command "make lock" "$@" >/dev/null
    mv -f "$name.txt.new" "$name.txt"
}

command -v uv >/dev/null || {
    echo "error: uv is not on PATH; run this as \`make lock\`" >&2
    exit 2
}
trap 'rm -f ./*.txt.new ../../benchmarks/locks/*.txt.new' EXIT

peers='azureml mlflow bentoml mlserver'
# shellcheck disable=SC2086 # names
[ $# -gt 0 ] || set -- toolbox scoring-linear scoring scoring-sklearn uv az checks $peers
for name in "$@"; do
    case $name in
        toolbox | az | checks) compile "$name" ;;
        scoring-linear | scoring | scoring-sklearn | uv) compile "$name" --constraints toolbox.txt ;;
        azureml | mlflow | bentoml | mlserver) compile "../../benchmarks/locks/$name" ;;
        *)
            echo "error: no such lock: $name (toolbox, scoring-linear, scoring, scoring-sklearn, uv, az, checks, $(echo "$peers" | sed 's/ /, /g'))" >&2
            exit 2
            ;;
    esac
done
