# make demo    search on the small model that ships with the package: preset and dashboard in runs/demo
# make test    all tests
# make check   ruff, mypy, import contracts
# make bench   all benchmarks, about two hours; goes on where it was stopped; table in results/benchmarks
# Each creates $(VENV) when it is not there; nothing else is done by hand.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.14.1 torchvision==0.29.1
# processes that share the tests; each takes one core and up to 3 GB
JOBS ?= 2

MODEL ?= open-sora-tiny
BUDGET ?= 1200
SEED ?= 0
OUT ?= runs/demo

BIN := $(VENV)/bin
STAMP := $(VENV)/.stg-tune-installed

.DEFAULT_GOAL := help
.PHONY: help venv demo test check bench format clean

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

venv: $(STAMP)

# torch comes first and by its exact version: left to the resolver, other packages may pull in another build of it.
# The pip of an old Python knows no dependency groups, so it is renewed before they are asked for.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "stg-tune needs Python >= 3.11; type: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(TORCH) \
		|| echo "no $(TORCH) for this machine: the newest that fits is taken instead"
	$(BIN)/python -m pip install --upgrade 'pip>=25.1' 'setuptools>=77' wheel
	$(BIN)/python -m pip install --editable . --group dev
	@touch $@

# a demo that was stopped goes on where it was
demo: venv
	@if test -f $(OUT)/run.json; then \
		$(BIN)/stg-tune resume $(OUT); \
	else \
		$(BIN)/stg-tune search --model $(MODEL) --budget $(BUDGET) --seed $(SEED) --out $(OUT); \
	fi

test: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: venv
	$(BIN)/python -m benchmarks.suite

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
