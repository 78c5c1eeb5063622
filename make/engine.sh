#!/bin/sh
# Prints yes if a verb run now could build images.
set -eu
case $(docker/run.sh --where) in
    container) echo yes ;;
    here)
        case ${SLIPWAY_ENGINE:-} in
            docker) echo yes ;;
            '') if docker version >/dev/null 2>&1; then echo yes; fi ;;
        esac
        ;;
esac
