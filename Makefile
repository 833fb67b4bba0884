# Every target does its own set-up: all that is needed is Python 3.11 to 3.13, git and make.
.DEFAULT_GOAL := help
.PHONY: help setup repro demo test bench lint lock clean

# The first of these that is there and new enough; another one: `make repro PYTHON=/path/to/python3`.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && command -v $$p && break; done)
VENV := $(CURDIR)/.venv
export PATH := $(VENV)/bin:$(PATH)
# TensorFlow's start-up notes hide the lines that matter.
export TF_CPP_MIN_LOG_LEVEL ?= 2

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## create .venv from requirements.lock and install the package

$(VENV)/.installed: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 to 3.13 found; name one with make PYTHON=/path/to/python3" >&2; exit 2; }
	"$(PYTHON)" -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

repro: setup ## draw, split, describe, train and evaluate at full scale; only what changed runs again
	dvc repro
	dvc metrics show

demo: setup ## the same at a small scale in a throwaway copy, in under 4 minutes
	python examples/demo.py

test: setup ## run all tests
	pytest

bench: setup ## run all benchmarks, about 10 minutes on an idle machine
	python benchmarks/lab_note.py
	python benchmarks/generation.py
	python benchmarks/access.py
	python benchmarks/verify.py

lint: setup ## check format, style, types and spelling
	ruff format --check
	ruff check
	mypy
	codespell

lock: setup ## renew requirements.lock from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --no-annotate --upgrade --output-file requirements.lock

clean: ## delete unfinished work and caches of tools; data, models and the DVC cache stay
	rm -rf .work .pytest_cache .mypy_cache .ruff_cache .hypothesis
