"""What is recorded of each kind of change, on each filesystem: docs/fidelity.md, made from the tests' own results.

changes   the kinds of change, each a few lines of Python that do it
worker    the program that is recorded: it does them one after the other, and says what it saw
matrix    a recording on one filesystem, and its verdict on each change
page      docs/fidelity.md from the figures in docs/fidelity/
__main__  `python -m tests.fidelity`: all of it
"""
