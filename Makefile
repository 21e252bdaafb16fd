# Every target sets itself up: the first one creates .venv and installs the pinned versions, later ones reuse it.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: help bench bench-gpu demo density-demo density-sets density-digits camouflage-table test test-slow lint install clean

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed
# What `make demo` runs needs a part of the packages; where everything is installed, nothing else is.
DEMO := $(if $(wildcard .venv/installed),.venv/installed,.venv/installed-demo)
unexport PYTHONPATH
unexport VIRTUAL_ENV

# pip splits PIP_CONSTRAINT at spaces, and build isolation changes the folder: hence a file URL with an absolute path.
CONSTRAINT = $$($(BIN)/python -c 'import pathlib; print(pathlib.Path("constraints.txt").resolve().as_uri())')

help:
	@echo "make demo       reconstruct photographs through every attention kind; a page with tables and pictures"
	@echo "make density-demo  train certified attention and its control on point sets; densities and samples on a page"
	@echo "make density-sets  the table of docs/results/density_sets.md: three seeds, every control (about 10 minutes)"
	@echo "make density-digits  the table of docs/results/digits.md: three seeds beside other libraries' flows (about 10 minutes)"
	@echo "make camouflage-table  the table of docs/results/camouflage.md: 13 networks, three seeds, generated pairs (about 20 minutes, resumable)"
	@echo "make test       style, types, layers, tests with coverage"
	@echo "make test-slow  the tests that take long"
	@echo "make lint       style, types and layers only"
	@echo "make bench      speed and memory beside the plain formulas and other libraries: docs/benchmarks.md (resumable)"
	@echo "make bench-gpu  the tests, benchmarks and a training step on a GPU (under 10 minutes)"
	@echo "make clean      remove the environment and the caches"

install: $(STAMP)

.venv/installed: EXTRAS = experiments,dev
.venv/installed-demo: EXTRAS = reconstruction
.venv/installed .venv/installed-demo: pyproject.toml constraints.txt src/invattn/_version.py
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"Python 3.11 or newer is needed, $(PYTHON) is {v[0]}.{v[1]}: make PYTHON=python3.12")'
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv >/dev/null || { \
		echo "trying without ensurepip"; $(PYTHON) -m venv --clear --without-pip .venv && \
		$(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }
	@export PIP_CONSTRAINT="$(CONSTRAINT)" PIP_DISABLE_PIP_VERSION_CHECK=1; start=$$SECONDS; \
		echo "installing into .venv (torch first) ..."; \
		$(BIN)/pip install --quiet torch==2.13.0; \
		$(BIN)/pip install --quiet --editable '.[$(EXTRAS)]'; \
		echo "installation: $$((SECONDS - start)) s"
	@touch $@

demo: $(DEMO)
	rm -rf demo-output
	$(BIN)/invattn reconstruct --data photos --attention all --recipe certified,released \
		--epochs 40 --train-size 256 --test-size 64 --repeats 1 --output demo-output

density-demo: $(STAMP)
	rm -rf density-output
	OMP_NUM_THREADS=1 $(BIN)/invattn density train --data sets --output density-output

density-sets: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/density_sets.py --output density-sets-output

density-digits: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/density_tables.py digits --output density-digits-output

# Rows that benchmarks/results holds are kept: stopped, the same command goes on. BENCH takes options: --again, --wall, -k NAME.
bench: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -c benchmarks/speed/pytest.ini -q benchmarks/speed $(BENCH)
	$(BIN)/python benchmarks/speed/page.py

bench-gpu: $(STAMP)
	$(BIN)/python benchmarks/gpu.py

camouflage-table: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/camouflage_table.py --output camouflage-output

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --cov

test-slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 -m slow

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage build dist demo-output density-output density-sets-output density-digits-output camouflage-output
