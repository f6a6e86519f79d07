"""The program that is recorded: does one operation after the other, marks each, and says what is then there.

`python -m tests.oracle.worker ROOT ELSEWHERE`, what to do as JSON on stdin: {"script": [operation, ...]}
or {"seed": ..., "count": ..., "groups": [...]}, and {"inherited": [fd, ...]}. On stdout a line of JSON for
each moment: {"n", "operation", "outcome", "changed", "gone"}; "n" is the mark's name. A pipe, not a file:
nothing of it is recorded.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import diffkeeper

from .actors import Cast, OracleError
from .grammar import Grammar
from .hands import Args
from .truth import Scanner, Tree

THOROUGH = 500
"""Every so many moments all content is read again, to be sure that what is not read has not changed."""


def _operations(task: dict[str, Any], tree: Tree) -> Iterator[Args]:
    if "script" in task:
        yield from task["script"]
        return
    grammar = Grammar(task["seed"], tree, task["groups"])
    for _ in range(task["count"]):
        yield grammar.next()


def main(root: bytes, elsewhere: bytes) -> int:
    """The whole program."""
    task = json.load(sys.stdin)
    tree: Tree = {}
    scanner = Scanner(root)
    cast = Cast(root, elsewhere, task.get("inherited", ()))

    def moment(number: int, operation: Args | None, outcome: dict[str, Any]) -> None:
        diffkeeper.mark(f"m{number}")
        # A store through memory need not change a time, on tmpfs it never does.
        stored = operation is not None and operation["op"].startswith("map_")
        changed, gone = scanner.scan(thorough=stored)
        for path in gone:
            del tree[path]
        tree.update(changed)
        if number % THOROUGH == 0 and (unseen := scanner.scan(thorough=True)) != ({}, []):
            raise OracleError(f"changes went unseen: {unseen}")
        line = {"n": number, "operation": operation, "outcome": outcome, "changed": changed, "gone": gone}
        sys.stdout.write(json.dumps(line) + "\n")

    moment(0, None, {})
    for number, operation in enumerate(_operations(task, tree), start=1):
        moment(number, operation, cast.do(operation))
    cast.close()
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(os.fsencode, sys.argv[1:3])))
