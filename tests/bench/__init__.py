"""Benches: what recording costs, and how fast a trace is looked at, beside tools that do something like it.

`python -m tests.bench` measures and writes docs/benchmarks.md. One module a part (`capture`, `ignored`, `index`,
`size`, `look`, `growth`); each gives rows for the page. What all of them use is in `measure` (runs in turn, medians,
rows) and `material` (trees, recordings, and checks that a run did its work); other tools are in `peers`.
"""
