#!/bin/sh
# Usage: docker/run.sh CMD...        runs CMD where RUNNER says
#        docker/run.sh --where       prints where that is: container, here or venv
#
# container: in the toolbox image, the tree at its own path. here: as it is, the environment being
# the toolbox already. venv: in .venv, made from the same lock. auto: container if a Docker engine
# answers, else venv. CMD ends when the process that called ends. Its exit code is passed on.
set -eu
. "$(dirname -- "$0")/lib.sh"

# What passes into the container besides the settings of .env.example: what is said for one call,
# and how the caller's terminal and network are.
readonly PASSED='PARAMS FORCE MODEL_VERSION CONFIRM UPGRADE VERBOSE INPUT OUTPUT KEEP PROBABILITIES
    WAIT BENCH_PEERS BENCH_SECONDS BENCH_ROUNDS SLIPWAY_LOCKED PYTEST_ADDOPTS NO_COLOR
    TERM CI TZ COLUMNS http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
    PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST UV_DEFAULT_INDEX UV_INDEX UV_INDEX_URL
    UV_EXTRA_INDEX_URL UV_INSECURE_HOST'

# What a CI job or a machine of Azure's has to sign in with, for PLATFORM=azure only.
readonly SIGN_IN_WITH='AZURE_CLIENT_ID AZURE_TENANT_ID AZURE_FEDERATED_TOKEN_FILE servicePrincipalId
    idToken ACTIONS_ID_TOKEN_REQUEST_URL ACTIONS_ID_TOKEN_REQUEST_TOKEN SYSTEM_OIDCREQUESTURI
    SYSTEM_ACCESSTOKEN AZURESUBSCRIPTION_SERVICE_CONNECTION_ID IDENTITY_ENDPOINT IDENTITY_HEADER
    IMDS_ENDPOINT MSI_ENDPOINT'

# A field of docker's --mount, which reads CSV.
field() { printf '"%s"' "$(printf %s "$1" | sed 's/"/""/g')"; }

# Whether an engine answers within 2 s; what it said is in $answer. It is asked for the clone's
# network, because that is needed next.
engine_answers() {
    have docker || {
        answer='the docker command is not installed'
        return 1
    }
    if answer=$(limit 2 docker network inspect --format found "$network" 2>&1); then return 0; fi
    case $answer in
        *'No such network'* | *'not found'*) return 0 ;;
        '') answer='the engine did not answer within 2 s' ;;
    esac
    return 1
}

# Makes RUNNER one of container, here and venv.
choose_runner() {
    case $RUNNER in
        here | venv) ;;
        auto) if engine_answers; then RUNNER=container; else RUNNER=venv; fi ;;
        container)
            engine_answers || case $answer in
                *'permission denied'*) die 2 "RUNNER=container: this user may not use Docker" \
                    "Add it to the docker group and log in again, or use RUNNER=venv." ;;
                *) die 2 "RUNNER=container: no Docker engine answers ($(echo "$answer" | tail -n 1))" \
                    "Start Docker, or use RUNNER=venv." ;;
            esac
            ;;
        *) die 2 "RUNNER=$RUNNER should be auto, container, here or venv" ;;
    esac
}

# Whether this process still runs and still has the parent it began with. A parent that is dead but
# not yet collected has lost its children already.
called() {
    if [ -r "/proc/$$/stat" ]; then
        read -r line <"/proc/$$/stat" || return 1
        # shellcheck disable=SC2086 # state, parent and other numbers
        set -- ${line##*) }
        [ "$1" != Z ] && [ "$2" = "$PPID" ]
    else
        kill -0 "$PPID" && kill -0 "$$"
    fi
}

# Ends what runs here once the caller is gone: a signal that reaches make alone ends make and its
# shell, not us. Holds neither the caller's files nor its lock.
watch_caller() {
    (
        trap '' INT TERM HUP
        while called; do sleep 0.4; done
        "$@"
    ) </dev/null >/dev/null 2>&1 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- &
}
stop_process() { kill -TERM "$$"; }
stop_container() {
    docker kill --signal TERM "$container" || return 0
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        sleep 1
        docker inspect "$container" || return 0
    done
    docker rm --force "$container"
}

# The verb in `python -m scripts.VERB`; other commands are their own name.
verb_of() {
    case $* in
        'python -m '*) echo "${3#scripts.}" ;;
        *) basename -- "$1" ;;
    esac
}

needs_engine() {
    case $1 in
        image | deploy | rollback | down | logs | status | smoke | load | doctor | distclean) ;;
        # The toolbox's image goes to where the training runs.
        train | publish_pipeline) [ "$PLATFORM" = azure ] ;;
        pytest | bash | sh) ;;
        *) return 1 ;;
    esac
}

# outside NAME VERB: the path outside the tree that the variable means for that verb, if there is one:
# the data file; of a batch job what there is of its input, a glob beginning in a folder, and the
# output's folder.
outside() {
    case $1:$2 in
        DATA_PATH:*) path=${DATA_PATH:-} ;;
        INPUT:batch_score) path=${INPUT:-} ;;
        OUTPUT:batch_score) path=${OUTPUT:+$(dirname -- "$OUTPUT")} ;;
        *) return 0 ;;
    esac
    case $path in
        '') return 0 ;;
        /*) ;;
        *) path=$ROOT/$path ;;
    esac
    while [ "$1" = INPUT ] && [ ! -e "$path" ]; do path=$(dirname -- "$path"); done
    [ -e "$path" ] || return 0
    real=$(readlink -f "$path")
    case $path in "$ROOT"/*) path=$real ;; esac
    case $real in
        / | "$ROOT" | "$ROOT"/*) ;;
        /tmp | /dev | /proc | /run | /etc | /usr | /opt | /var | /home | /root)
            die 2 "$1: $real itself cannot be shown to the container, which has one of its own" \
                "Move the files to a folder of their own, or use RUNNER=venv."
            ;;
        *) echo "$path" ;;
    esac
}

# The engine's socket on this machine, or as a container sees it where Docker runs in a machine
# of its own.
engine_socket() {
    host=${DOCKER_HOST:-$(docker context inspect --format '{{.Endpoints.docker.Host}}')}
    case $host in
        unix://*) socket=${host#unix://} ;;
        *) die 2 "DOCKER_HOST=$host: only a local engine can see this tree" "Unset it, or use RUNNER=venv." ;;
    esac
    [ "$(uname -s)" = Linux ] || socket=/var/run/docker.sock
    echo "$socket"
}

in_container() {
    stage=toolbox
    [ "$PLATFORM" != azure ] || stage=az
    image=$("$ROOT/docker/image.sh" "$stage")
    case $answer in
        found) ;;
        *) docker network create --label "slipway.clone=$id" "$network" >/dev/null ||
            die 1 "Docker could not create the network $network" \
                "\`docker network prune\` removes the ones that nothing uses." ;;
    esac
    verb=$(verb_of "$@")

    user=$(id -u) group=$(id -g)
    if [ "$user" = 0 ]; then
        user=$(owner_uid "$ROOT") group=$(owner_gid "$ROOT")
    fi
    make_build_dir runner
    container=slipway-$id-run-$$
    name=slipway
    [ "$user" != 0 ] || name=root
    entry=$name:x:$user:$group::/home/slipway:/bin/bash
    # Another container may be reading it.
    [ "$(cat "$ROOT/build/runner/passwd" 2>/dev/null)" = "$entry" ] ||
        echo "$entry" >"$ROOT/build/runner/passwd"

    # Options go before the command that is in "$@" already, the last ones first.
    set -- "$image" sh -c "$INNER" slipway "$@"
    if needs_engine "$verb"; then
        socket=$(engine_socket)
        gid=0
        [ "$(uname -s)" != Linux ] || gid=$(owner_gid "$socket")
        set -- --mount "type=bind,$(field "source=$socket"),target=/var/run/docker.sock" --group-add "$gid" "$@"
        # From 29 on the engine refuses what the toolbox's client would say of itself.
        major=$(docker --version | sed -n 's/^Docker version \([0-9]*\).*/\1/p')
        [ "${major:-0}" -lt 29 ] || set -- -e DOCKER_API_VERSION=1.44 "$@"
    fi
    if [ "$verb" = ui ]; then
        port=${MLFLOW_PORT:-$((0x$(echo "$id" | cut -c1-6) % 10000 + 30000))}
        set -- --publish "127.0.0.1:$port:$port" "$@"
    fi
    ca=$(ca_file)
    if [ -n "$ca" ]; then
        export EXTRA_CA="$ca"
        case $ca in
            "$ROOT"/*) ;;
            *) set -- --mount "type=bind,$(field "source=$ca"),$(field "target=$ca"),readonly" "$@" ;;
        esac
    fi
    # What lies outside the tree, or behind a link that leads out of it, at its own path too.
    mounted=::
    for variable in OUTPUT INPUT DATA_PATH; do
        path=$(outside "$variable" "$verb") || exit
        case $mounted in *:"$path":*) continue ;; esac
        mounted=$mounted$path:
        mode=,readonly
        [ "$variable" != OUTPUT ] || mode=
        set -- --mount "type=bind,$(field "source=$(readlink -f "$path")"),$(field "target=$path")$mode" "$@"
    done
    # A worktree's history lies in another clone.
    if [ -f "$ROOT/.git" ] && git_dir=$(git -C "$ROOT" rev-parse --path-format=absolute --git-common-dir 2>/dev/null); then
        set -- --mount "type=bind,$(field "source=$git_dir"),$(field "target=$git_dir")" "$@"
    fi
    if [ -d "${AZURE_CONFIG_DIR:-}" ] && [ "$AZURE_CONFIG_DIR" != /home/azure ]; then
        set -- --mount "type=bind,$(field "source=$AZURE_CONFIG_DIR"),target=/home/azure" "$@"
    else
        set -- --mount "type=volume,source=slipway-$id-azure,target=/home/azure,volume-label=slipway.clone=$id" "$@"
    fi
    passed=$PASSED
    if [ "$PLATFORM" = azure ]; then
        passed="$passed $SIGN_IN_WITH"
        token=${AZURE_FEDERATED_TOKEN_FILE:-}
        [ ! -f "$token" ] || set -- --mount "type=bind,$(field "source=$token"),$(field "target=$token"),readonly" "$@"
    fi
    for key in $passed $(sed -n 's/^\([A-Z][A-Z0-9_]*\)=.*/\1/p' "$ROOT/.env.example"); do
        set -- -e "$key" "$@"
    done
    set -- --rm --init --name "$container" --network "$network" --platform linux/amd64 \
        --label "slipway.clone=$id" --label slipway.role=runner --security-opt no-new-privileges \
        --user "$user:$group" --workdir "$ROOT" \
        --mount "type=bind,$(field "source=$ROOT"),$(field "target=$ROOT")" \
        --mount "type=bind,$(field "source=$ROOT/build/runner/passwd"),target=/etc/passwd,readonly" \
        --mount "type=volume,source=slipway-$id-home,target=/home/slipway,volume-label=slipway.clone=$id" \
        -e RUNNER -e SLIPWAY_ENGINE -e SLIPWAY_ROOT -e SLIPWAY_ID -e SLIPWAY_NETWORK \
        -e EXTRA_CA -e no_proxy -e NO_PROXY -e GIT_CONFIG_COUNT -e GIT_CONFIG_KEY_0 -e GIT_CONFIG_VALUE_0 \
        "$@"
    export RUNNER=here SLIPWAY_ENGINE=docker SLIPWAY_NETWORK="$network"
    give_back
    watch_caller stop_container
    [ -t 0 ] && [ -t 1 ] && [ -t 2 ] || exec docker run "$@"

    # With a terminal Ctrl-C goes to the container alone; the caller must hear of it too.
    status=0
    docker run --interactive --tty "$@" || status=$?
    if [ "$status" = 130 ]; then
        trap '' INT
        kill -INT 0
    fi
    exit "$status"
}

# One bundle of this machine's certificates and EXTRA_CA's, for the tools that take only one.
trust_extra_ca() {
    [ -z "${SSL_CERT_FILE:-}" ] || return 0
    ca=$(ca_file)
    [ -n "$ca" ] || return 0
    make_build_dir runner
    bundle=$ROOT/build/runner/ca-bundle.pem
    for system in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem /dev/null; do
        [ ! -r "$system" ] || break
    done
    cat "$system" "$ca" >"$bundle.$$" && mv -f "$bundle.$$" "$bundle"
    export SSL_CERT_FILE="$bundle" REQUESTS_CA_BUNDLE="$bundle" PIP_CERT="$bundle"
}

# The Azure CLI, in an environment of its own: only where it is wanted.
with_az() {
    [ "$PLATFORM" = azure ] || return 0
    "$ROOT/docker/venv.sh" az
    export PATH="$ROOT/.venv-az/only:$PATH"
}

in_venv() {
    trust_extra_ca
    "$ROOT/docker/venv.sh"
    export PATH="$ROOT/.venv/bin:$PATH" VIRTUAL_ENV="$ROOT/.venv" RUNNER=here SLIPWAY_ENGINE=none
    unset SLIPWAY_NETWORK PYTHONHOME PYTHONPATH
    with_az
    watch_caller stop_process
    exec "$@"
}

in_place() {
    trust_extra_ca
    if [ -z "${SLIPWAY_ENGINE:-}" ]; then
        SLIPWAY_ENGINE=none
        engine_answers && SLIPWAY_ENGINE=docker
        export SLIPWAY_ENGINE
    fi
    # The dev container notes there which network it joined.
    if [ -z "${SLIPWAY_NETWORK:-}" ] && [ -r /run/slipway-network ]; then
        SLIPWAY_NETWORK=$(cat /run/slipway-network)
        export SLIPWAY_NETWORK
    fi
    export RUNNER=here
    have az || with_az
    watch_caller stop_process
    exec "$@"
}

# What runs first in the container: a CA bundle of Debian's certificates and the caller's, and the
# lock that tells the next make of a container which outlived this one.
# shellcheck disable=SC2016 # expanded in the container
readonly INNER='
if [ -n "${EXTRA_CA:-}" ]; then
    cat /etc/ssl/certs/ca-certificates.crt "$EXTRA_CA" >/tmp/ca.pem
    export SSL_CERT_FILE=/tmp/ca.pem REQUESTS_CA_BUNDLE=/tmp/ca.pem PIP_CERT=/tmp/ca.pem
fi
[ "${SLIPWAY_LOCKED:-}" = "$SLIPWAY_ROOT" ] || exec "$@"
exec flock --no-fork --shared build/.run-lock "$@"'

[ $# -gt 0 ] || die 2 "usage: docker/run.sh CMD..."
settings RUNNER PLATFORM EXTRA_CA MLFLOW_PORT DATA_PATH
id=$(clone_id)
network=slipway-$id
answer=

export SLIPWAY_ROOT="$ROOT" SLIPWAY_ID="$id"
export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# Neither MLflow nor onnxruntime reports home.
export MLFLOW_DISABLE_TELEMETRY=true ORT_DISABLE_TELEMETRY=1
# What we call on this machine is never behind a proxy.
no_proxy=${no_proxy:-${NO_PROXY:-}}
export no_proxy="${no_proxy:+$no_proxy,}localhost,127.0.0.1,slipway-$id-front"
export NO_PROXY="$no_proxy"
# The tree may belong to another user than git runs as.
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0="$ROOT"

choose_runner
if [ "$1" = --where ]; then
    echo "$RUNNER"
    exit
fi
cd "$ROOT"
case $RUNNER in
    container) in_container "$@" ;;
    venv) in_venv "$@" ;;
    here) in_place "$@" ;;
esac
