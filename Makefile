# `make train` and `make test` work on a fresh machine with python3 (3.11 or newer): they make .venv first.
PYTHON ?= python3
ARGS ?=
.DEFAULT_GOAL := help
.PHONY: help train test lint wheel clean

help:             ## this list
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*##/ -/'

train: .venv/.installed   ## train on the embedded data; ARGS="optimizer=rmsprop" are overrides
	.venv/bin/python train.py $(ARGS)

test: .venv/.installed    ## the whole test suite; ARGS are pytest's
	.venv/bin/python -m pytest -n 2 --dist worksteal $(ARGS)

lint: .venv/.installed    ## ruff and mypy
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

wheel: .venv/.installed   ## build dist/*.whl
	.venv/bin/python -m build --wheel --no-isolation

clean:            ## remove what was built and installed
	rm -rf .venv build dist

# torch first, alone and pinned: whatever comes after finds it satisfied
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	-env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -m compileall -q -j 0 .venv/lib
	touch .venv/.installed
