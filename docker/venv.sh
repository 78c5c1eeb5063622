#!/bin/sh
# Usage: docker/venv.sh [toolbox|az|checks]
#
# Makes .venv hold exactly what docker/locks/toolbox.txt says, or .venv-NAME what NAME.txt does, or
# leaves it as it is if it does. CPython 3.11 comes from PATH, else uv finds one. Exit 2 names what is
# missing. .venv-NAME/only holds the programs it is made for and nothing else, to stand on PATH.
set -eu
. "$(dirname -- "$0")/lib.sh"

what=${1:-toolbox}
case $what in
    toolbox) name=.venv programs='' ;;
    az) name=.venv-az programs=az ;;
    checks) name=.venv-checks programs='checkov kubernetes-validate' ;;
    *) die 2 "no such environment: $what; it is toolbox, az or checks" ;;
esac
readonly LOCK="$ROOT/docker/locks/$what.txt"
venv=$ROOT/$name
# Holds the lock's hash once everything is in place: an interrupted build has none.
mark=$venv/.slipway

up_to_date() { [ "$(cat "$mark" 2>/dev/null)" = "$wanted" ] && [ -x "$venv/bin/python" ]; }

is_python311() {
    "$1" -c 'import sys; raise SystemExit(sys.version_info[:2] != (3, 11) or sys.implementation.name != "cpython")' 2>/dev/null
}

has_uv() { uv --version >/dev/null 2>&1; }

# The first python3.11 on PATH that works; a version manager's stand-in may not.
find_python() {
    old_ifs=$IFS
    IFS=:
    for dir in $PATH; do
        IFS=$old_ifs
        if [ -x "$dir/python3.11" ] && is_python311 "$dir/python3.11"; then
            echo "$dir/python3.11"
            return
        fi
    done
}

# An environment without packages. The mark comes first, so that it is known as ours.
create() {
    mkdir -p "$venv"
    echo building >"$mark"
    find "$venv" -mindepth 1 -maxdepth 1 ! -name .slipway -exec rm -rf {} +
    python=$(find_python)
    if [ -n "$python" ]; then
        "$python" -m venv --without-pip "$venv" >>"$log" 2>&1 ||
            die 1 "$python cannot make an environment; see $log"
    elif has_uv; then
        uv venv --allow-existing --python 3.11 "$venv" >>"$log" 2>&1 ||
            die 2 "there is no Python 3.11 here, and uv finds none: $(tail -n 1 "$log")" \
                "Install Python 3.11, or start Docker and use RUNNER=container."
    else
        die 2 "there is neither Python 3.11 nor uv on PATH" \
            "Install one of them (apt-get install python3.11, or pip install uv), or use RUNNER=container."
    fi
}

# uv from its own lock, by whatever pip this machine has.
bootstrap_uv() {
    "$venv/bin/python" -m ensurepip >>"$log" 2>&1 || :
    for python in "$venv/bin/python" python3; do
        "$python" -m pip --version >>"$log" 2>&1 || continue
        "$python" -m pip install --quiet --target "$venv/bootstrap" --require-hashes --no-deps \
            -r "$ROOT/docker/locks/uv.txt" >>"$log" 2>&1 || explain_failure
        PATH=$venv/bootstrap/bin:$PATH
        return
    done
    die 2 "there is neither uv nor pip here to install packages with" \
        "Install one of them (apt-get install python3.11-venv python3-pip), or use RUNNER=container."
}

explain_failure() {
    if grep -qi 'no space left on device' "$log"; then
        die 1 "making $name failed: no space left on the disk" "It takes 2 GB; free some."
    fi
    say "error: making $name failed; the last lines of $log:"
    tail -n 8 "$log" | cut -c1-200 | sed 's/^/  | /' >&2
    if grep -qiE 'certificate|UnknownIssuer' "$log"; then
        say "  A certificate was not trusted: name your company's CA bundle in EXTRA_CA."
    fi
    exit 1
}

wanted=$(sha256 <"$LOCK")
if up_to_date; then exit; fi

make_build_dir docker
log=$ROOT/build/docker/${name#.}.log
exec 8>"$ROOT/build/docker/${name#.}.lock"
lock_fd 8 x 3600 || die 1 "another process has been making $name for an hour"
if up_to_date; then exit; fi
if [ -e "$venv" ] && [ ! -e "$mark" ]; then
    die 2 "$name exists and is not Slipway's" "Move it away, or use RUNNER=container or RUNNER=here."
fi

say "making $name from docker/locks/$what.txt (log: build/docker/${name#.}.log; a minute or two)"
echo building >"$log"
# What is there is only brought up to date if it is whole.
case $(cat "$mark" 2>/dev/null) in
    '' | building) create ;;
    *) if is_python311 "$venv/bin/python"; then echo building >"$mark"; else create; fi ;;
esac
has_uv || bootstrap_uv
uv pip sync --python "$venv/bin/python" --require-hashes --compile-bytecode "$LOCK" >>"$log" 2>&1 ||
    explain_failure
rm -rf "$venv/bootstrap"
for program in $programs; do
    mkdir -p "$venv/only"
    ln -sf "../bin/$program" "$venv/only/$program"
done
echo "$wanted" >"$mark"
