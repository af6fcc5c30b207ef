# Everything runs in .venv, which is made on first use and again when a dependency changes: activate nothing.
#
#     make demo         train, export, serve and ask the built-in digits
#     make test         lint, the tests against the tree, the tests against the built wheel
#     make lint         ruff and mypy alone
#     make bench        measure the ratios that we promise, about ten minutes; fails when one is missed
#     make wheel        dist/: the source distribution, and the wheel built from it
#     make constraints  take the newest versions of all dependencies into constraints.txt
#     make clean        delete what these targets made
#
# PYTHON chooses the interpreter that .venv is made with:  make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
PIP := -m pip --disable-pip-version-check --no-input

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench wheel constraints clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; ok = sys.version_info >= (3, 11); ok or print("coterie needs Python 3.11 or newer; \
	$(PYTHON) is", sys.version.split()[0] + ": name another, for example make PYTHON=python3.12"); sys.exit(not ok)'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) $(PIP) install --quiet -c constraints.txt hatchling editables
	$(PY) $(PIP) install --quiet -c constraints.txt --no-build-isolation -e ".[all,dev]"
	@touch $@

demo: $(READY)
	$(PY) -m coterie.cli demo

lint: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

# A worker a core, each with one thread: most of the time goes to Python, not to arithmetic.
test: lint
	OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --dist loadfile
	OMP_NUM_THREADS=1 tools/test-wheel $(PY)

bench: $(READY)
	$(PY) -m benchmarks.promises

wheel: $(READY)
	rm -rf dist
	$(PY) -m build --no-isolation --outdir dist

constraints:
	tools/make-constraints $(PYTHON)

clean:
	rm -rf $(VENV) .venv-wheel dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find runtime exporter training tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
