#!/bin/sh
# What `make format` does, in the toolbox: mends what has one right form.
set -eu
python -m ruff check --fix-only --quiet .
python -m black --quiet .
