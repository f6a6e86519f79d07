#!/bin/bash
# The whole loop on a flaky test: record it until it fails, then look at the moment it failed.
# Needs `make setup`. Works in a scratch directory, asks nothing, and leaves nothing behind.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
bin=$(cd "$here/../.." && pwd)/.venv/bin
as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo env PYTHONDONTWRITEBYTECODE=1)
attempts=${DEMO_ATTEMPTS:-40}

scratch=$(mktemp -d "${TMPDIR:-/tmp}/diffkeeper-demo.XXXXXX")
cleanup() {
    cd /
    if mountpoint -q "$scratch/mnt"; then "$bin/diffkeeper" umount "$scratch/mnt" || true; fi
    rm -rf "$scratch"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

bold='' dim='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; fi
caption() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
show() { printf '%s$ %s%s\n' "$dim" "$*" "$plain"; }
diffkeeper() { "$bin/diffkeeper" "$@"; }
# Show a command as a user would type it, then run it.
run() { show "$@"; "$@"; }

cp -r "$here/project" "$scratch/project"
mkdir "$scratch/mnt"
cd "$scratch/project"

caption "A test that fails once in a while. Record it until it does."
show "diffkeeper record -o ../trace --force -- python -m unittest test_pipeline"
failed=''
for attempt in $(seq "$attempts"); do
    rm -rf work
    status=0
    "${as_root[@]}" "$bin/diffkeeper" record -o ../trace --force -- \
        "$bin/python" -B -m unittest -q test_pipeline </dev/null >../log 2>&1 || status=$?
    if [ "$status" = 0 ]; then
        printf 'run %d: passed\n' "$attempt"
    elif grep -q '^FAILED' ../log; then
        failed=$attempt
        printf 'run %d: FAILED, and it is on record\n\n' "$attempt"
        grep -E '^(AssertionError|FAILED|diffkeeper)' ../log
        break
    else
        cat ../log >&2
        echo "demo: recording failed with exit code $status; what it said is above" >&2
        exit "$status"
    fi
done
if [ -z "$failed" ]; then
    echo "demo: the test passed $attempts times in a row; luck. Run it again." >&2
    exit 1
fi
cd "$scratch"

caption "How much was recorded, and how well?"
run diffkeeper info trace

# The last time the file was emptied before the test complained.
emptied=$(diffkeeper timeline trace --json --path status.json --op truncate --until broken | tail -n 1 |
    "$bin/python" -c 'import json, sys; print(json.load(sys.stdin)["event"])')
before=e$((emptied - 1))

caption "The test left a mark, 'broken', when it found a file it could not read. What led up to it?"
run diffkeeper timeline trace --since "$before" --until broken

caption "Event $emptied emptied status.json. Every moment is a directory; this is just before, and then:"
run diffkeeper mount trace mnt
run ls -l "mnt/@$before/work/status.json" "mnt/@broken/work/status.json"
failure=broken
if "$bin/python" -m json.tool "mnt/@broken/work/status.json" /dev/null 2>/dev/null; then
    failure=e$emptied
    echo "(The file was whole again before the test could set its mark; so we look at @$failure.)"
fi

caption "What differs between the moment before ($before) and the failure ($failure)?"
show diff -r "mnt/@$before" "mnt/@$failure"
{ diff -r "mnt/@$before" "mnt/@$failure" || true; } >difference
head -n 6 difference
lines=$(wc -l <difference)
[ "$lines" -le 12 ] || printf '   ... %d lines more ...\n' "$((lines - 12))"
[ "$lines" -le 6 ] || tail -n "$((lines - 6 < 6 ? lines - 6 : 6))" difference
run diffkeeper diff trace "$before" "$failure" || [ $? = 1 ]

caption "Take the evidence home: the directory as it was when the test failed."
run diffkeeper export trace --time "$failure" --out evidence
show python -m json.tool evidence/work/status.json
"$bin/python" -m json.tool evidence/work/status.json /dev/null 2>&1 || true

caption "Done: report() writes status.json in place, and a reader can come in between."
run diffkeeper umount mnt
