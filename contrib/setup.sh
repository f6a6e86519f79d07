#!/bin/sh
# Set DiffKeeper up on Debian: system packages, then .venv with the package in it.
# Does only what is missing, so repeating it is quick. `--with-tests` adds what tests and linters use; what a
# former run added stays.
set -eu
cd "$(dirname "$0")/.."

packages="python3-bpfcc libfuse3-dev fuse3 pkg-config build-essential python3-dev python3-venv"
extras=
sources='diffkeeper plugins'
case ${1:-} in
    '') ;;
    --with-tests)
        extras='[dev]'
        sources="$sources tests"
        packages="$packages git sqlite3 acl attr sudo procps mount e2fsprogs xfsprogs btrfs-progs liburing-dev libaio-dev"
        packages="$packages stress-ng fio rsync zip unzip bindfs ntfs-3g"
        # Some get these two from elsewhere, under other names.
        command -v npm >/dev/null || packages="$packages npm"
        ls /usr/lib/postgresql/*/bin/pgbench >/dev/null 2>&1 || packages="$packages postgresql"
        packages="$packages chromium jq zstd" # what exports are checked with
        ;;
    *) echo "usage: $0 [--with-tests]" >&2; exit 2 ;;
esac
python=${PYTHON:-python3}

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

if [ "$(id -u)" = 0 ]; then
    as_root='' who='as root'
else
    as_root=sudo who="as $(id -un), with sudo for what needs root"
fi
say "running $who"

missing=
for package in $packages; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || state=
    [ "$state" = installed ] || missing="$missing $package"
done

if [ -n "$missing" ]; then
    command -v apt-get >/dev/null || fail "this is no Debian or Ubuntu (no apt-get); install by hand:$missing"
    [ -z "$as_root" ] || command -v sudo >/dev/null ||
        fail "not root and no sudo; run as root: apt-get install$missing"
    say "installing Debian packages:$missing"
    log=$(mktemp)
    no_server=/etc/postgresql-common/createcluster.d/diffkeeper-tests.conf
    trap 'rm -f "$log"; [ ! -e "$no_server" ] || $as_root rm -f "$no_server"' EXIT
    case $missing in
        *postgresql*) # the tests need its programs: no server is to be set up and started for them
            $as_root mkdir -p "${no_server%/*}"
            echo 'create_main_cluster = false' | $as_root tee "$no_server" >/dev/null
            ;;
    esac
    apt() {
        # shellcheck disable=SC2086
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y "$@" </dev/null >"$log" 2>&1 || {
            cat "$log" >&2
            fail "apt-get $* failed; what it said is above"
        }
    }
    apt update
    # shellcheck disable=SC2086
    apt install --no-install-recommends $missing
else
    say 'Debian packages are there'
fi

if [ -n "$as_root" ] && [ -c /dev/fuse ] && ! [ -w /dev/fuse ]; then
    say 'opening /dev/fuse to users, as udev does on a full Debian'
    $as_root chmod 666 /dev/fuse
fi

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$python is older than 3.11; name a newer one: make setup PYTHON=python3.11"

key="$("$python" -V) $(sha256sum <pyproject.toml) $(pwd)"
is_installed() {
    case $(cat .venv/.setup-key 2>/dev/null) in
        "$key $extras" | "$key [dev]") # with the tests' packages there is all that is needed without
            .venv/bin/python -c 'import diffkeeper' 2>/dev/null ;;
        *) false ;;
    esac
}

if is_installed; then
    say '.venv is up to date'
else
    say "installing into .venv with $("$python" -V); the first time takes a minute"
    rm -f .venv/.setup-key
    if [ "$(.venv/bin/python -V 2>/dev/null)" != "$("$python" -V)" ] || ! .venv/bin/python -m pip -V >/dev/null 2>&1; then
        "$python" -m venv --clear .venv
    fi
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".$extras" </dev/null
    printf '%s\n' "$key $extras" >.venv/.setup-key
    say 'done'
fi
# Root is not to leave bytecode in the tree, and without any each program compiles anew what it imports, two fifths of
# its start.
# shellcheck disable=SC2086
.venv/bin/python -m compileall -q $sources >/dev/null 2>&1 || say 'not all bytecode could be written; programs start slower'
