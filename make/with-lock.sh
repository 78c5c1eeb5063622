#!/bin/sh
# Usage: make/with-lock.sh CMD...
#
# Runs CMD while build/.lock is held, so that one make works in this clone at a time. CMD and its
# children inherit the lock: it is free only when the last of them is gone. LOCK_WAIT is how many
# seconds to wait for another holder (600). Also waits for a container that outlived its make:
# those hold build/.run-lock.
set -eu
cd "$(dirname -- "$0")/.."
. make/lock-fd.sh

wait=${LOCK_WAIT:-600}

# give_up HOLDER MEND
give_up() {
    printf 'error: %s still works in this clone after %s s\n  %s\n' "$1" "$wait" "$2" >&2
    exit 1
}

# What root makes here is for the tree's owner, whom the runner runs as.
give_back() {
    [ "$(id -u)" != 0 ] || chown --reference=. "$1" 2>/dev/null || :
}

command=$*
me="make ${command##*make } (pid $$, $(id -un 2>/dev/null || id -u), since $(date '+%Y-%m-%d %H:%M:%S'))"
while :; do
    mkdir -p build
    give_back build
    exec 9>>build/.lock
    if ! lock_fd 9 x 0; then
        holder=$(tail -n 1 build/.lock)
        printf 'waiting for %s, at most %s s (LOCK_WAIT)\n' "${holder:-another make}" "$wait" >&2
        lock_fd 9 x "$wait" || give_up "$(tail -n 1 build/.lock)" "Wait for it or end it; or set LOCK_WAIT higher."
    fi
    # The file may have been removed and made anew meanwhile; then the lock is on the old one.
    echo "$me" >&9
    [ "$(tail -n 1 build/.lock 2>/dev/null)" != "$me" ] || break
done
echo "$me" >build/.lock
give_back build/.lock

exec 8>>build/.run-lock
if ! lock_fd 8 x 0; then
    printf 'waiting for a container of an interrupted make to end, at most %s s\n' "$wait" >&2
    lock_fd 8 x "$wait" || give_up "a container of an interrupted make" \
        "\`docker ps --filter label=slipway.role=runner\` shows it; \`docker stop\` ends it."
fi
give_back build/.run-lock
exec 8>&-

exec "$@"
