# The two commands are `make demo` and `make test`. Both do all the set-up; after it, neither needs a network.
SHELL := /bin/bash
# The first that runs and can make an environment; a name on the PATH may be a version manager's that does neither.
PYTHON ?= $(shell for name in python3.11 python3.12; do $$name -c 'import ensurepip' 2>/dev/null && echo $$name && exit; done; echo python3)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORDS := fl_alliance/privacy/reporting/locale

export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1

.PHONY: help demo test lint types arrows tests format words clean

help:
	@echo "make demo    set up, then run an alliance of three institutions on this machine"
	@echo "make test    set up, then lint, type, import and behaviour checks"
	@echo "make lint | types | arrows | tests | format | words | clean"

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/fl-alliance demo

test: lint types arrows tests

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

arrows: $(STAMP)
	$(BIN)/lint-imports

# Two at a time, a file as a whole: what a file's tests share is made once.
tests: $(STAMP)
	$(BIN)/pytest -n 2 --dist loadfile

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# After a sentence of the report was changed: what has no translation yet is empty in the .po, and a test names it.
words: $(STAMP)
	mkdir -p build
	$(BIN)/pybabel -q extract --no-location --width 110 -o build/report.pot fl_alliance/privacy
	$(BIN)/pybabel -q update --no-fuzzy-matching --ignore-obsolete --width 110 -D report -i build/report.pot -d $(WORDS)
	$(BIN)/pybabel -q compile -D report -d $(WORDS)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist run
