"""Extents laid one over the other: which of them is still to be seen where. Knows no files and no tables."""

from __future__ import annotations

from ..arrays import np
from .codec import Column, distinct


def visible(starts: Column, ends: Column) -> tuple[Column, Column, Column]:
    """From, to and number of the extent that lies on top, ascending by place; later extents lie above earlier ones.

    Where nothing lies is left out. Costs n log n, whatever overlaps what.
    """
    some = np.flatnonzero(ends > starts)
    if not len(some):
        nothing = np.zeros(0, np.int64)
        return nothing, nothing, nothing
    edges = distinct(np.concatenate((starts[some], ends[some])))
    first, last = np.searchsorted(edges, starts[some]), np.searchsorted(edges, ends[some])
    # An extent covers the fields `first` to `last` between edges: with two powers of two that overlap, the greatest
    # number wins. Then each power is handed down to the next smaller one, until single fields are left.
    top = np.zeros(len(edges) - 1, np.int64)  # number + 1
    power = np.frexp(last - first)[1] - 1
    for level in range(int(power.max()), -1, -1):
        size = 1 << level
        chosen = power == level
        np.maximum.at(top, first[chosen], some[chosen] + 1)
        np.maximum.at(top, last[chosen] - size, some[chosen] + 1)
        if level:
            half = size >> 1
            below = top.copy()
            np.maximum(below[half:], top[: len(top) - half], out=below[half:])
            top = below
    seen = np.flatnonzero(top)
    return edges[seen], edges[seen + 1], top[seen] - 1
