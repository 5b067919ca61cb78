# make demo: install into .venv and run the demonstration. make test: everything that guards main.
PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-slow bench lint clean
.DELETE_ON_ERROR:

$(BIN)/python:
	$(PYTHON) -m venv .venv

# A stamp per set of extras: what is installed is installed once for a given pyproject and constraints.
# torch comes first and by its exact pin: anything looser can pull gigabytes of CUDA packages.
.venv/run.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) torch==2.13.0
	$(INSTALL) -e .
	touch $@

.venv/test.stamp: .venv/run.stamp
	$(INSTALL) -e '.[test]'
	touch $@

.venv/bench.stamp: .venv/test.stamp
	$(INSTALL) -e '.[test,bench]'
	touch $@

demo: .venv/run.stamp
	$(BIN)/hpcxrf demo

lint: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(PYTEST) -m 'not slow and not bench' --durations=30

test-slow: .venv/test.stamp
	$(PYTEST) -m slow

bench: .venv/bench.stamp
	$(PYTEST) tests/bench -m bench --benchmark-enable -o addopts='--strict-markers'

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
