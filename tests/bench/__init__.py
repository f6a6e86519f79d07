"""Benchmarks: `python -m tests.bench` times workloads bare and recorded, interleaved, and prints ratios."""
