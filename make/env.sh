#!/bin/sh
# Run one of the awk programs here, most of which read the settings: env.sh PROGRAM ARGUMENT...
# From the clone's root. Any POSIX awk will do; bytes, not characters, whatever the locale.
set -eu
program=$1
shift
colour=
[ ! -t 1 ] || [ -n "${NO_COLOR:-}" ] || colour=1
LC_ALL=C exec awk -v colour="$colour" -f make/env.awk -f "make/$program.awk" "$@"
