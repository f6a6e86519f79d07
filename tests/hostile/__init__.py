"""Traces from strangers, tried out: traces are damaged in every way we can think of, and all is done to them."""
