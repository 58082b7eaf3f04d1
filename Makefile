# Two commands on a fresh machine with Python >= 3.11 and make:
#   make compare    trains with and without batch norm on real data and writes runs/digits/report.html
#   make test       lints, type-checks and tests
# For the work between: make quick lints and runs the tests that are not slow, in a minute or so.
# make fast builds jbn's sums natively for this machine's processor: faster on one CPU device.
# make docs builds the site in build/site, make docs-serve serves it at http://localhost:8000.
# Each sets up .venv by itself, once. Another interpreter: make test PYTHON=python3.13

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: compare test check quick fast docs docs-serve clean

compare: .venv/.experiments
	$(BIN)/python -m experiments run configs/digits.py --out runs/digits --confirm 5
	@echo "Open runs/digits/report.html in a browser: xdg-open or open runs/digits/report.html"
	@echo "More: $(BIN)/python -m experiments --help; after . $(BIN)/activate, python -m experiments"

test: check
	$(BIN)/python -m pytest -n auto --dist loadfile

quick: .venv/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python -m pytest -n auto -m "not slow" --ignore tests/parity

check: .venv/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pyright --verifytypes jbn --ignoreexternal

# A warning is an error, and a link that leads nowhere is one.
docs: .venv/.docs
	JAX_PLATFORMS=cpu $(BIN)/python -m sphinx -W --keep-going -q -c docs . build/site
	@echo "build/site/index.html"

docs-serve: docs
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory build/site 8000

fast: jbn/_numerics/column_sums.so

jbn/_numerics/column_sums.so: jbn/_numerics/column_sums.cc | .venv/.experiments
	$(CXX) -std=c++17 -O3 -march=native -fPIC -shared \
	  -isystem "$$($(BIN)/python -c 'import jax; print(jax.ffi.include_dir())')" $< -o $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "jbn needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.experiments: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) install -q -c constraints.txt -e '.[experiments]'
	@touch $@

.venv/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) install -q -c constraints.txt -e '.[dev]'
	@touch $@ .venv/.experiments

.venv/.docs: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) install -q -c constraints.txt -e '.[docs]'
	@touch $@

# The other frameworks, for tests/parity: CI has them, make test skips what is not installed.
.venv/.rivals: .venv/.dev
	$(PIP) install -q -c constraints.txt -e '.[rivals]'
	@touch $@

# The compiler for TPUs, for tests/experiments/bench/test_compiled_tpu.py: likewise. In a folder that
# only they look into: where JAX finds it, it looks for a TPU in every program.
.venv/.libtpu: .venv/.dev
	$(PIP) install -q -c constraints.txt --no-deps --upgrade --target .venv/libtpu libtpu
	@touch $@

clean:
	rm -rf .venv runs dist build .pytest_cache .ruff_cache .hypothesis jbn/_numerics/column_sums.so
