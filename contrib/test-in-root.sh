#!/bin/sh
# Run the test suite in the root of another system: with its Python, its bcc and LLVM, its libraries; on this kernel, and in
# a pid namespace, as in a container.
#   mmdebstrap --variant=minbase --include=python3-venv,make,git,ca-certificates trixie ROOT
#   contrib/test-in-root.sh ROOT [pytest's arguments]
# What is committed is tested, from ROOT/root/diffkeeper. Packages and wheels come as they do in ROOT: what this system
# needs for that (a proxy, certificates) is to be put there before.
set -eu
[ $# -gt 0 ] && [ -d "$1/root" ] || { sed -n '2,5s/^# *//p' "$0" >&2; exit 2; }
root=$(readlink -f "$1") here=$(readlink -f "$(dirname "$0")/..")
shift
rm -rf "$root/root/diffkeeper"
git clone -q "$here" "$root/root/diffkeeper"
# A root of its own by pivot_root: under chroot(8) the kernel's paths would begin somewhere above.
exec env -i TERM="${TERM:-dumb}" HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    unshare --mount --propagation private --pid --fork --kill-child sh -euc '
        mount --bind "$0" "$0"
        cd "$0"
        for name in sys dev; do mount --rbind "/$name" "$name"; done
        mount -t proc proc proc
        mkdir -p .before
        pivot_root . .before
        umount -l /.before
        cd /root/diffkeeper
        make test-setup
        contrib/run-tests.sh "$@" # not by exec: the first process reaps orphans, which pytest would not
    ' "$root" "$@"
