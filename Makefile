# make demo     from a fresh machine to the main job's result: a movie becomes cells, traces, figures, a report
# make test     lint and tests, as the continuous integration runs them
# make test-all the same with the slow tests
# make bench    benchmarks, with the peers that can be installed
# make docs     the HTML documentation
# make sanitize the CUDA kernels on the CPU under the address and undefined-behaviour sanitizers
# Each makes .venv itself, and does nothing twice.

PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
DEMO_OUTPUT ?= demo-output

.PHONY: venv lint test test-all bench docs demo sanitize clean

venv: .venv/.dev

.venv/.core: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) --editable '.[plot,tiff]'
	touch $@

.venv/.dev: .venv/.core
	$(INSTALL) --editable '.[dev]'
	touch $@

.venv/.bench: .venv/.dev
	$(INSTALL) --editable '.[bench]'
	touch $@

.venv/.docs: .venv/.dev
	$(INSTALL) --editable '.[docs]'
	touch $@

demo: .venv/.core
	$(BIN)/gpucalcium demo --output $(DEMO_OUTPUT)

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow"

test-all: lint
	$(BIN)/python -m pytest -n $(WORKERS)

bench: .venv/.bench
	$(BIN)/python -m pytest benchmarks --benchmark-only --benchmark-columns=min,median,stddev

docs: .venv/.docs
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

# Leaks are Python's own business; each launch runs once, as the sanitizers look at addresses, not at races.
sanitize: .venv/.dev
	GPUCALCIUM_EMULATOR_SANITIZE=1 GPUCALCIUM_EMULATOR_SEEDS=1 ASAN_OPTIONS=detect_leaks=0 \
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so):$$(g++ -print-file-name=libubsan.so)" \
	$(BIN)/python -m pytest -q tests/backend tests/emulator -k "emulated or test_launch or emulator or twins"

clean:
	rm -rf .cache build dist docs/_build docs/generated demo-output
