"""Draws the growth curves: `python plot.py FIGURES.json OUT.svg`. Stands alone, as only .venv-bench has matplotlib."""

import json
import sys

import matplotlib as mpl  # type: ignore[import-not-found]  # only in the environment of `make bench`

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "diffkeeper"  # the same figures, the same file
from matplotlib import pyplot as plt  # noqa: E402 - after what it is to be


def main(figures: str, out: str) -> None:
    with open(figures, encoding="utf-8") as file:
        curves = json.load(file)["curves"]
    plt.figure(figsize=(8, 4.5))
    for what, found in curves.items():
        plt.loglog([int(events) for events in found], list(found.values()), marker="o", label=what)
    plt.xlabel("events in the trace")
    plt.ylabel("seconds")
    plt.grid(visible=True, which="major", alpha=0.3)
    plt.legend(fontsize="small", loc="upper left")
    plt.tight_layout()
    plt.savefig(out, metadata={"Date": None})


main(*sys.argv[1:])
