#!/bin/sh
# What the benches compare with, and what draws their curves: Debian packages, and .venv-bench with the rest.
# Nothing of it goes into .venv. Does only what is missing.
set -eu
cd "$(dirname "$0")/.."

as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
missing=
for package in strace restic borgbackup python3-llfuse fuse3 gcc git sqlite3; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
if [ -n "$missing" ]; then
    echo "bench: installing Debian packages:$missing"
    $as_root apt-get -q update >/dev/null
    # shellcheck disable=SC2086
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends $missing >/dev/null
fi
if ! .venv-bench/bin/python -c 'import matplotlib, ratarmount, reprozip' 2>/dev/null; then
    echo 'bench: installing ratarmount, reprozip and matplotlib into .venv-bench'
    "${PYTHON:-python3}" -m venv --clear .venv-bench
    .venv-bench/bin/python -m pip install --quiet --disable-pip-version-check ratarmount reprozip matplotlib
fi
