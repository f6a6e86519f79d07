#!/bin/sh
# Run the test suite, as root. Arguments go to pytest; without any the whole suite runs.
# Leaves nothing in the source tree that the user who called sudo could not remove.
set -eu
cd "$(dirname "$0")/.."
export PYTHONDONTWRITEBYTECODE=1
# By two at once, as half of the time is waiting: for the kernel, for a disk. The tests of one file stay together.
[ "$#" != 0 ] || set -- --numprocesses 2 --dist loadfile
if [ -n "${SUDO_UID:-}" ]; then
    HYPOTHESIS_STORAGE_DIRECTORY=$(mktemp -d)
    export HYPOTHESIS_STORAGE_DIRECTORY
    status=0
    .venv/bin/python -m pytest -p no:cacheprovider "$@" || status=$?
    rm -rf "$HYPOTHESIS_STORAGE_DIRECTORY"
    exit "$status"
fi
exec .venv/bin/python -m pytest "$@"
