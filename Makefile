# Everything a fresh checkout needs: Python >= 3.11, make, a C compiler and a package registry.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet
NATIVE := hatch_build.py $(wildcard src/metaembed/kernels/native/*)
export TOKENIZERS_PARALLELISM = false
export HF_HUB_OFFLINE = 1

.PHONY: help demo test torture claims check format lint types layers mini card bench native clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

demo: $(VENV)/.demo ## index this Python's documentation and ask it questions
	$(BIN)/metaembed demo --out build/demo

test: $(VENV)/.dev ## run the tests
	$(BIN)/python -m pytest

torture: $(VENV)/.dev ## kill writers, cut the power, damage files, hundreds of times each
	$(BIN)/python -m pytest -m torture

check: format lint types layers test ## the whole gate

format: $(VENV)/.dev
	$(BIN)/ruff format --check src tests benchmarks hatch_build.py

lint: $(VENV)/.dev
	$(BIN)/ruff check src tests benchmarks hatch_build.py

types: $(VENV)/.dev
	$(BIN)/mypy

layers: $(VENV)/.dev
	$(BIN)/lint-imports

mini: $(VENV)/.dev ## train metaembed-mini anew (up to 90 minutes); goes on where it stopped
	$(BIN)/metaembed train recipes/mini.toml --out build/mini
	cp -R build/mini/model/. src/metaembed/mini/

card: $(VENV)/.dev ## measure metaembed-mini and write the figures into its model card
	$(BIN)/metaembed eval metaembed-mini --out benchmarks/results/mini.json
	$(BIN)/python benchmarks/render.py

# About two hours and 40 GB of disk on two cores; each script goes on without the others.
bench: $(VENV)/.bench demo ## measure searches against the machine and its peers, and write the tables
	$(BIN)/python benchmarks/search.py
	$(BIN)/python benchmarks/cold.py
	$(BIN)/python benchmarks/passages.py --limit 102400
	$(BIN)/python benchmarks/passages_search.py
	$(BIN)/python benchmarks/million.py
	$(BIN)/python benchmarks/hybrid.py
	$(BIN)/python benchmarks/training_step.py
	$(BIN)/python benchmarks/render.py

claims: $(VENV)/.dev ## try the paper's claims on generated scenes: about an hour on two cores; stops and goes on
	$(BIN)/python benchmarks/claims/run.py
	$(BIN)/python benchmarks/claims/report.py

native: $(BIN)/python ## compile the native kernel anew, after a change to it
	$(BIN)/python hatch_build.py

clean: ## delete what the targets made
	rm -rf $(VENV) build src/metaembed/kernels/_native.so .mypy_cache .ruff_cache .import_linter_cache

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt $(NATIVE) | $(BIN)/python
	$(PIP) install --constraint constraints.txt --editable '.[pages,mini]'
	touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(PIP) install --constraint constraints.txt --editable '.[bench]'
	touch $@

# Qwen-VL's processor needs torchvision, and its wheels break a CPU build of torch in the same
# environment; the tests put it on their path from a folder of its own.
$(VENV)/.dev: pyproject.toml constraints.txt $(NATIVE) | $(BIN)/python
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	$(PIP) install --no-deps --upgrade --target $(VENV)/torchvision-for-tests torchvision==0.28.0
	touch $@ $(VENV)/.demo
