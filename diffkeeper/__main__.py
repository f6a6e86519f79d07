"""`python -m diffkeeper`: the same program as `diffkeeper`."""

from __future__ import annotations

from diffkeeper.cli import main

main()
