"""Operations that a common program does: what it calls is its own affair."""

from __future__ import annotations

import os
import subprocess

from .hands import Args, Hands


def run(hands: Hands, args: Args) -> None:
    """`argv` with "{0}", "{1}", ... replaced by `paths`, from where the actor stands."""
    spelt = []
    for path in args["paths"]:
        with hands.at(path) as (_, text):
            spelt.append(b"./" + text)  # names may begin with a dash
    words = [spelt[int(word[1:-1])] if word[0] + word[-1] == "{}" else os.fsencode(word) for word in args["argv"]]
    try:
        done = subprocess.run(words, input=b"given\n", capture_output=True, check=False, timeout=5)
    except subprocess.TimeoutExpired:  # it waits for the other end of a FIFO
        raise OSError(4, "it was ended") from None
    if done.returncode:
        raise OSError(5, "it failed")
