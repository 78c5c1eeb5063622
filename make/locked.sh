#!/usr/bin/env bash
# Run make for the goals while the lock is held: locked.sh MAKE GOAL...
# When `all` fails, the report is still made; the end is the failure all the same.
set -u
make=$1
shift
# The clone whose lock is held; a make in another clone takes its own.
SLIPWAY_LOCKED=$(pwd -P)
export SLIPWAY_LOCKED

run() { exec "$make" --no-print-directory "$@"; }

# In the background so that a signal is passed on at once; Ctrl-C reaches the child by itself.
run_and_report() {
    local code=0 interrupted='' child
    (
        trap - INT QUIT
        run "$@" <&3
    ) 3<&0 &
    child=$!
    trap 'interrupted=1' INT QUIT
    trap 'interrupted=1; kill -TERM "$child"' TERM HUP
    wait "$child" || code=$?
    # A signal ends `wait`, not the child.
    while kill -0 "$child" 2>/dev/null; do
        wait "$child"
        code=$?
    done
    [ "$code" -ne 0 ] || return 0
    if [ -z "$interrupted" ]; then (run report-anyway); fi
    exit "$code"
}

case " $* " in
    # What is up to date is decided before the first goal is made: not for what `clean` removes.
    *' clean '?* | *' distclean '?*)
        for goal in "$@"; do
            if [ "$goal" = all ]; then run_and_report all; else (run "$goal") || exit; fi
        done
        ;;
    *' all '*) run_and_report "$@" ;;
    *) run "$@" ;;
esac
