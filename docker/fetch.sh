#!/bin/sh
# Usage, in RUN lines of the Dockerfile: fetch.sh CMD...
#
# Runs CMD with what the builder's network needs: the CA bundle from the BuildKit secret `ca`,
# proxies and package mirrors from the secret `network`. Both are optional. They live in memory
# for that one command, so that nothing of them is in a layer or in the image's history.
#
#   fetch.sh install PACKAGE...    installs Debian packages and leaves no package lists
#   fetch.sh download PACKAGE...   downloads them into the current directory
set -eu

memory=/dev/shm/slipway
mkdir -p "$memory"
trap 'rm -rf "$memory"' EXIT

if [ -s /run/secrets/network ]; then
    set -a
    # shellcheck source=/dev/null
    . /run/secrets/network
    set +a
fi
if [ -s /run/secrets/ca ]; then
    cat /etc/ssl/certs/ca-certificates.crt /run/secrets/ca >"$memory/ca.pem" 2>/dev/null ||
        cp /run/secrets/ca "$memory/ca.pem"
    printf 'Acquire::https::CAInfo "%s/ca.pem";\n' "$memory" >"$memory/apt.conf"
    export APT_CONFIG="$memory/apt.conf" PIP_CERT="$memory/ca.pem" \
        SSL_CERT_FILE="$memory/ca.pem" REQUESTS_CA_BUNDLE="$memory/ca.pem"
fi
export DEBIAN_FRONTEND=noninteractive PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

what=$1
case $what in
    install | download)
        shift
        apt-get update -qq
        if [ "$what" = install ]; then
            apt-get install -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 "$@"
        else
            apt-get download -qq -o APT::Sandbox::User=root "$@"
        fi
        rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb \
            /var/log/apt /var/log/dpkg.log /var/log/alternatives.log /var/cache/ldconfig/aux-cache
        ;;
    *) "$@" ;;
esac
