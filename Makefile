# Every target does its own set-up: all that is needed is Python 3.11 to 3.13, git and make.
.DEFAULT_GOAL := help
.PHONY: help setup quickstart repro report demo docs pretrained test bench lint lock charts clean moved

IS_USABLE := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
# The first of these that is usable; another one: `make repro PYTHON=/path/to/python3`.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c '$(IS_USABLE)' 2>/dev/null && command -v $$p && break; done)
# Relative, as there may be spaces in the project's path; in every recipe, as make 3.81 does not look into an exported PATH.
BIN := .venv/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-user --target '' --prefix "$$(pwd -P)/.venv"
# An environment names its own place in its programs, so a project that was moved needs another.
MOVED := $(shell test -s .venv/.installed && test "$$(cat .venv/.installed)" != "$$(pwd -P)" && echo moved)

# Stages, tests and examples call `python`, `dvc` and `git`; dvc takes the shell that SHELL names.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export SHELL := /bin/sh
# An umlaut in the project's path is the same one in every locale.
export PYTHONUTF8 := 1
# What would put code of other projects in the place of ours, or ours elsewhere.
unexport PYTHONHOME PYTHONPATH PYTHONSAFEPATH PYTHONOPTIMIZE PYTHONWARNINGS
unexport PIP_CONSTRAINT PIP_DRY_RUN PIP_NO_DEPS PIP_PREFIX PIP_PYTHON PIP_REQUIREMENT PIP_ROOT PIP_TARGET PIP_USER
# A user id without a name, as containers have them, gets one: dvc asks for it.
export LOGNAME ?= user-$(shell id -u)

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.installed ## create .venv from requirements.lock and install the package

.venv/.installed: requirements.lock pyproject.toml $(MOVED)
	@"$(PYTHON)" -c '$(IS_USABLE)' 2>/dev/null || { echo "error: $(if $(PYTHON),$(PYTHON) is no,found no) Python 3.11 to 3.13 with venv;" \
		"on Debian: apt install python3-venv; or name one with make PYTHON=/path/to/python3" >&2; exit 2; }
	@test ! -L .venv || { echo "error: .venv is a link to an environment of somebody else: remove the link with rm .venv" >&2; exit 2; }
	"$(PYTHON)" -m venv $(MOVED:moved=--clear) .venv
	@echo "installing the locked packages into .venv: 4.5 GB, some minutes"
	@# The pip that comes with Python 3.11 takes almost twice the processor time for all the others.
	@grep -A 2 '^pip==' requirements.lock | $(INSTALL) --require-hashes --requirement /dev/stdin
	$(INSTALL) --require-hashes --requirement requirements.lock
	@# setuptools warns of every package that is installed in place.
	PYTHONWARNINGS=ignore $(INSTALL) --isolated --no-deps --no-build-isolation --editable .
	@pwd -P > $@

quickstart: setup ## publish a small registry on this disk and say how to try it, in a minute
	@echo "publishing to .work/quickstart/registry.git, in about a minute; wait for the lines that say what to type next"
	$(BIN)/python examples/quickstart.py

repro: setup ## draw, split, describe, train and evaluate at full scale; only what changed runs again
	@git rev-parse --git-dir >/dev/null 2>&1 || test -e .git || { echo "error: DVC needs a Git repository here: clone the project, or run" \
		"git init && git add --all && git commit -m project" >&2; exit 2; }
	@# DVC makes its stages of what params.yaml names, and would say in words of its own what is wrong there.
	@$(BIN)/python -m stages.check --values
	$(BIN)/dvc repro
	@$(BIN)/python -m captcha_registry.seeing.summary

report: setup ## write models/report.html, the results of all models and the causes of their errors; first runs what changed
	@$(BIN)/dvc repro report

demo: setup ## run the complete pipeline at a small scale in a throwaway copy, in about 6 minutes
	$(BIN)/python examples/demo.py

docs: setup ## build the pages of docs/ and say where they are
	$(BIN)/sphinx-build --quiet --fail-on-warning docs docs/build
	@echo "open docs/build/index.html"

pretrained: setup ## write the models of this checkout into the package, as ONNX files with their SHA-256
	rm -rf .work/pretrained
	$(BIN)/captcha-registry export models/cnn --format onnx --half --to .work/pretrained/digits.onnx
	$(BIN)/captcha-registry export models/crnn --format onnx --half --to .work/pretrained/alnum.onnx
	cd .work/pretrained && shasum -a 256 *.onnx > SHA256SUMS
	mv .work/pretrained/* captcha_registry/pretrained

test: setup ## run the tests, except those that only CI has time for
	$(BIN)/pytest

bench: setup ## run all benchmarks except time_to_accuracy.py, about 20 minutes on an idle machine
	$(BIN)/python benchmarks/lab_note.py
	$(BIN)/python benchmarks/generation.py
	$(BIN)/python benchmarks/access.py
	$(BIN)/python benchmarks/verify.py
	$(BIN)/python benchmarks/input.py

lint: setup ## check format, style, types and spelling
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/codespell

lock: setup ## write requirements.lock again from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --no-annotate --upgrade --output-file requirements.lock

charts: setup ## update what draws charts: the libraries (needs npm), the page and the templates of `dvc plots`
	$(BIN)/python -m captcha_registry.seeing.vendored
	$(BIN)/python -m captcha_registry.seeing.dvc_plots

clean: ## delete unfinished work and caches of tools; data, models and the DVC cache stay
	rm -rf .work .pytest_cache .mypy_cache .ruff_cache .hypothesis
