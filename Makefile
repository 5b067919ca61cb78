# make demo: install into .venv and run the demonstration. make test and make test-more: what guards main.
PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-more test-slow docs release floors fuzz bench lint clean
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

.venv/docs.stamp: .venv/test.stamp
	$(INSTALL) -e '.[test,docs,release]'
	touch $@

.venv/release.stamp: .venv/run.stamp
	$(INSTALL) -e '.[release]'
	touch $@

demo: .venv/run.stamp
	$(BIN)/hpcxrf demo

lint: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Files of tests are shared between two cores.
SHARED := -n 2 --dist loadfile --durations=20

test: lint
	$(PYTEST) -m 'not slow and not bench and not more' $(SHARED)

# Whole runs and drills on a private Slurm, which do not fit into the quarter of an hour of `make test`.
test-more: .venv/test.stamp
	$(PYTEST) -m 'more and not slow' $(SHARED)

# The pages, with their notebooks and scripts run; then the tests of the site.
docs: .venv/docs.stamp
	$(BIN)/python -m sphinx -n -W --keep-going -d build/doctrees docs build/docs
	HPCXRF_SITE=build/docs $(PYTEST) tests/docs/test_site.py

# What is published: sdist, wheel, bill of materials.
release: .venv/release.stamp
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python docs/packaging/make_sbom.py > dist/hpcxrf.cdx.json

# The lowest versions that pyproject.toml allows, in an environment of their own; torch is the pinned one.
floors:
	$(PYTHON) docs/packaging/floors.py --run build/floors

# Damaged files of every kind, N of them: make fuzz N=100000 SEED=2
N := 2000
SEED := 1
fuzz: .venv/test.stamp
	$(BIN)/python -m tests.fuzz --cases $(N) --seed $(SEED)

test-slow: .venv/test.stamp
	$(PYTEST) -m slow

bench: .venv/bench.stamp
	$(PYTEST) tests/bench -m bench --benchmark-enable -o addopts='--strict-markers'

clean:
	rm -rf .venv docs/built-gallery docs/sg_execution_times.rst build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
