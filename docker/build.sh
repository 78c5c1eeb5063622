#!/bin/sh
# Usage: docker/build.sh STAGE CONTEXT NAME [DOCKER-BUILD-OPTION...]
#
# Builds one stage of the Dockerfile found in CONTEXT and names the image. What the network
# here needs goes along as BuildKit secrets: EXTRA_CA (or SSL_CERT_FILE, REQUESTS_CA_BUNDLE),
# proxies and package mirrors. Everything docker says goes to build/docker/STAGE.log.
# Exit 1: the build failed; 2: it cannot be tried.
set -eu
. "$(dirname -- "$0")/lib.sh"
settings EXTRA_CA

# Variables a builder's network may need; never passed as ARG or ENV.
readonly NETWORK_KEYS='http_proxy https_proxy no_proxy all_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY
    ALL_PROXY PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST UV_DEFAULT_INDEX UV_INDEX
    UV_INDEX_URL UV_EXTRA_INDEX_URL UV_INSECURE_HOST'

# The first Docker client on PATH that can build with BuildKit: it has buildx, or is older
# than 23, which has BuildKit built in.
building_client() {
    old_ifs=$IFS
    IFS=:
    for dir in $PATH; do
        IFS=$old_ifs
        client=$dir/docker
        [ -x "$client" ] || continue
        if "$client" buildx version >/dev/null 2>&1; then
            echo "$client"
            return
        fi
        major=$("$client" --version | sed -n 's/^Docker version \([0-9]*\).*/\1/p')
        if [ "${major:-99}" -lt 23 ]; then
            echo "$client"
            return
        fi
    done
    return 1
}

write_network_secret() {
    for key in $NETWORK_KEYS; do
        eval "value=\${$key:-}"
        # A build cannot reach a proxy on this machine's loopback.
        case $value in
            *://localhost[:/]* | *://127.*) continue ;;
        esac
        [ -z "$value" ] || printf "%s='%s'\n" "$key" "$(printf %s "$value" | sed "s/'/'\\\\''/g")"
    done
    # uv does not read pip's variables.
    if [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ] && [ -n "${PIP_INDEX_URL:-}" ]; then
        printf "UV_DEFAULT_INDEX='%s'\n" "$(printf %s "$PIP_INDEX_URL" | sed "s/'/'\\\\''/g")"
    fi
}

# Only the steps' names on the screen, unless VERBOSE.
progress() {
    if [ -n "${VERBOSE:-}" ]; then
        cat >&2
    else
        awk -v stage="$stage" '/^#[0-9]+ \[[^]]*[0-9]+\/[0-9]+\] (RUN|COPY)/ {
            sub(/^#[0-9]+ /, ""); gsub(/--mount=[^ ]* */, ""); gsub(/sh \/usr\/local\/bin\/fetch.sh /, "")
            line = substr($0, 1, 90)
            if (!(line in seen)) { seen[line] = 1; print "  " line; fflush() }
        }' >&2
    fi
}

explain_failure() {
    if engine_problem "$log"; then
        die 2 "no Docker engine answers" "Start Docker, or use RUNNER=venv, which builds no images."
    fi
    if grep -qi 'no space left on device' "$log"; then
        die 1 "building the $stage image failed: no space left on Docker's disk" \
            "Free some (docker system df shows what takes it, docker builder prune empties the build cache)."
    fi
    say "error: building the $stage image failed; the last lines of build/docker/$stage.log:"
    step=$(sed -n 's/^\(#[0-9]*\) ERROR.*/\1/p' "$log" | head -n 1)
    if [ -n "$step" ]; then
        grep "^$step " "$log" | grep -vE "^$step (\[|sha256:|ERROR: executor|ERROR: process)"
    else
        grep -v '^ *$' "$log"
    fi | tail -n 12 | sed "s/^${step:-#} //" | cut -c1-200 | sed 's/^/  | /' >&2
    if grep -qiE 'certificate verify failed|self.signed certificate|unknown issuer|unable to get local issuer' "$log"; then
        say "  A certificate was not trusted: name your company's CA bundle in EXTRA_CA."
    fi
    exit 1
}

[ $# -ge 3 ] || die 2 "usage: docker/build.sh STAGE CONTEXT NAME [DOCKER-BUILD-OPTION...]"
stage=$1 context=$2 name=$3
shift 3

ca=$(ca_file)
client=$(building_client) || die 2 "no Docker client here can build with BuildKit" \
    "Install the buildx plugin (docker-buildx-plugin or docker-buildx), or Debian's docker.io."
# FORCE is about the caller's verb.
base=$(FORCE='' "$(dirname -- "$0")/base.sh")

make_build_dir docker
log=$ROOT/build/docker/$stage.log
tmp=$(mktemp -d "${TMPDIR:-/tmp}/slipway-build.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
(umask 077 && write_network_secret >"$tmp/network")
set -- --secret "id=network,src=$tmp/network" "$@"
if [ -n "$ca" ]; then
    # Copied, because docker splits the option's value at commas.
    cp "$ca" "$tmp/ca"
    set -- --secret "id=ca,src=$tmp/ca" "$@"
fi

say "building the $stage image (log: build/docker/$stage.log)"
{
    status=0
    DOCKER_BUILDKIT=1 BUILDX_BUILDER=default "$client" build --progress=plain \
        --platform linux/amd64 --target "$stage" --build-arg "BASE=$base" --tag "$name" \
        --file "$context/Dockerfile" "$@" "$context" 2>&1 || status=$?
    echo "$status" >"$tmp/status"
} | tee "$log" | progress
give_back
[ "$(cat "$tmp/status")" = 0 ] || explain_failure
