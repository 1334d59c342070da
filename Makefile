# Two commands do everything on a fresh machine: make demo, make test.  Needed: Python >= 3.11 with venv, and make.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
SECOND ?= $(shell for p in python3.13 $(HOME)/.pyenv/versions/3.13*/bin/python3.13; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 13))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo test serve check format lint types tests second-postgres second-python second-python-tests real-orders real-orders-shuffled docs nightly bench clean

help:
	@echo "make demo     set up, run the programme on an embedded PostgreSQL, tell its story"
	@echo "make test     set up, run every test"
	@echo "make serve    the API and its workers on http://127.0.0.1:8000, over the demonstration's ledger"
	@echo "make check    format, lint, types, tests, documents: what continuous integration runs"
	@echo "make bench    the benchmarks          make nightly  the long tests"
	@echo "make setup    the environment alone   make clean    remove environment and embedded database"

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv is needed"; exit 1; }
	@echo "setting up $(VENV) with $$($(PYTHON) --version)" >&2
	@test -x $(BIN)/python && $(BIN)/python -c 'import sys' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(READY)

demo: $(READY)
	@$(BIN)/guarantee demo

serve: $(READY)
	@$(BIN)/guarantee demo >/dev/null
	@$(BIN)/guarantee serve

test: $(READY)
	$(BIN)/pytest --numprocesses 3 tests

check: $(READY) format lint types docs test second-postgres second-python real-orders

format: $(READY)
	$(BIN)/ruff format --check .

lint: $(READY)
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/python -m api.catalogue --check docs/catalogue.md

# The same tests of whatever speaks SQL on the machine's own PostgreSQL, where one is installed.
second-postgres: $(READY)
	@bin=$$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1); \
	if [ -n "$$bin" ]; then echo "again on $$($$bin/postgres --version)"; \
		GUARANTEE_TEST_PG_BIN=$$bin $(BIN)/pytest --numprocesses 2 tests/store tests/projections tests/api/test_embedded.py; \
	else echo "SKIPPED: no other PostgreSQL on this machine"; fi

# The same tests on Python 3.13, where it is installed beside the one in use.
second-python:
	@if [ -n "$(SECOND)" ]; then echo "again on $$($(SECOND) --version)"; \
		$(MAKE) --no-print-directory VENV=.venv-second PYTHON=$(SECOND) second-python-tests; \
	else echo "SKIPPED: no Python 3.13 on this machine"; fi

second-python-tests: $(READY)
	$(BIN)/pytest --numprocesses 2 tests/ledger tests/projections tests/olist

# Real orders, where they are: $$GUARANTEE_OLIST or ../shared/data/olist.
OLIST := $(if $(GUARANTEE_OLIST),$(GUARANTEE_OLIST),../shared/data/olist)
real-orders: $(READY)
	@if [ -d "$(OLIST)/expected" ]; then export GUARANTEE_HOME=$$(mktemp -d); \
		$(BIN)/guarantee import olist $(OLIST) --check $(OLIST)/expected; code=$$?; \
		$(BIN)/guarantee db stop; rm -rf "$$GUARANTEE_HOME"; exit $$code; \
	else echo "SKIPPED: no real orders here: set GUARANTEE_OLIST, or put them in ../shared/data/olist"; fi

# The same in two shuffled orders of receipt besides, again on top of itself, rebuilt and verified.
real-orders-shuffled: $(READY)
	$(BIN)/pytest -s -m slow tests/api/test_import_olist.py tests/olist

nightly: $(READY)
	HYPOTHESIS_PROFILE=nightly GUARANTEE_NIGHTLY=1 GUARANTEE_FUZZ_EXAMPLES=50 $(BIN)/pytest --numprocesses 2 tests
	$(BIN)/python -m tests.store.crash_sweep --writers 8 --kills 200 --server-kills 20

bench: $(READY)
	$(BIN)/guarantee bench

clean:
	-@$(BIN)/guarantee db stop 2>/dev/null
	rm -rf $(VENV) .venv-second .guarantee .mypy_cache .ruff_cache .pytest_cache .hypothesis
