# The two to know: `make demo` and `make test`. Each sets up what it needs, as root or with sudo.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.DEFAULT_GOAL := help
.PHONY: help setup test-setup demo test lint programs fidelity fuzz race bench bench-quick crash fuzz-traces kernels clean

help:  ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## install Debian packages and .venv, if they are not there yet
	@PYTHON='$(PYTHON)' contrib/setup.sh

test-setup:  ## the same, and what only tests and linters use
	@PYTHON='$(PYTHON)' contrib/setup.sh --with-tests

demo: setup  ## record a flaky test, and look at the moment it failed
	@contrib/demo/demo.sh

test: test-setup  ## run the whole test suite; needs root (or sudo), eBPF and FUSE
	$(AS_ROOT) contrib/run-tests.sh $(TESTS)

lint: test-setup  ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/mypy

programs: test-setup  ## record programs no one here wrote, for long; REPORT=FILE keeps the figures
	$(AS_ROOT) env PYTHONDONTWRITEBYTECODE=1 $(BIN)/python -m tests.programs $(if $(REPORT),--report $(REPORT)) $(PROGRAMS)

fidelity: test-setup  ## do every kind of change on every filesystem, and write docs/fidelity.md anew
	$(AS_ROOT) env PYTHONDONTWRITEBYTECODE=1 $(BIN)/python -m tests.fidelity

fuzz: test-setup  ## random operations held against the truth, on and on; FUZZ='--time 600 --report FILE'
	$(AS_ROOT) env PYTHONDONTWRITEBYTECODE=1 $(BIN)/python -m tests.oracle $(FUZZ)

race: test-setup  ## several processes at once on the same names: the end must be right (RACE='--seeds 9 --report FILE')
	$(AS_ROOT) env PYTHONDONTWRITEBYTECODE=1 $(BIN)/python -m tests.oracle.racing $(RACE)

bench: test-setup  ## measure recording and looking beside other tools, and write docs/benchmarks.md anew (BENCH='--part look')
	@PYTHON='$(PYTHON)' contrib/bench-peers.sh
	$(AS_ROOT) env PYTHONDONTWRITEBYTECODE=1 $(BIN)/python -m tests.bench $(BENCH)

bench-quick: test-setup  ## the same with less of everything, without other tools; keeps nothing
	$(AS_ROOT) env PYTHONDONTWRITEBYTECODE=1 $(BIN)/python -m tests.bench --quick

crash: test-setup  ## kill recorders, indexers and mounts at random, fill disks (CRASH=--points 5 --json FILE)
	$(AS_ROOT) env PYTHONDONTWRITEBYTECODE=1 $(BIN)/python -m tests.crash $(CRASH)

fuzz-traces: test-setup  ## damage traces in every way, and do everything with them (FUZZ=--seconds 3600)
	$(AS_ROOT) env PYTHONDONTWRITEBYTECODE=1 $(BIN)/python -m tests.hostile $(FUZZ)

kernels: test-setup  ## run system tests on other kernels, emulated: KERNELS='linux-image-*.deb DIRECTORY ...'
	$(AS_ROOT) env PYTHONDONTWRITEBYTECODE=1 $(BIN)/python -m tests.kernels $(KERNELS)

clean:  ## remove .venv and all caches
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
