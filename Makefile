# Everything a newcomer needs: `make demo`, `make test`. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3.11)
VENV := .venv
BIN := $(VENV)/bin
# Where pip finds the CPU build of torch, if the default index of this machine serves another one, e.g.
# make demo TORCH_INDEX=<address of an index with CPU wheels>
TORCH_INDEX ?=
TORCH_PIN := $(shell sed -n 's/^torch==/torch==/p' requirements/results.lock)
SIZE ?= demo
SEED ?= 0

export PATH := $(CURDIR)/$(BIN):$(PATH)
# Installs and tools stay quiet towards the outside; see "Telemetry" in the README.
export DO_NOT_TRACK := 1

.PHONY: help install demo sample test test-slow test-fast fuzz bench-extract bench-full bench-verifier bench-grpo lint stack-up stack-down stack-status data run worker deploy doctor clean distclean lock

help:  ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed  ## Make the virtual environment from the exact versions in requirements/

LOCKS := requirements/results.lock requirements/tools.lock

$(VENV)/.installed: $(LOCKS) pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found; install Python 3.11 or set PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "error: $(PYTHON) is not Python 3.11; set PYTHON=..."; exit 1; }
	@command -v git >/dev/null || { echo "error: git not found; DVC needs it"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the CPU build of torch ($(TORCH_PIN)), then the rest of requirements/"
	@# torch first: on a machine without a GPU a newer one would bring gigabytes of CUDA packages.
	$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH_PIN)"
	$(BIN)/python -m pip install --quiet --no-deps $(LOCKS:%=-r %)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: data  ## Sample corpus, local stack, the whole pipeline; ends with the table and the addresses
	$(BIN)/erv run

data: install  ## Create the sample corpus, upload it to the raw bucket and pin it
	@# The servers need seconds of waiting, the corpus minutes of work: side by side.
	@$(MAKE) --no-print-directory -j 2 stack-up sample
	$(BIN)/erv sample-data --size $(SIZE) --seed $(SEED) --upload
	$(BIN)/erv data pin

sample: install
	$(BIN)/erv sample-data --size $(SIZE) --seed $(SEED)

run: install  ## Run the train flow on the running stack
	$(BIN)/erv run

test: install  ## Fast tests and a tiny end-to-end run, on real servers
	@# Two processes, so one thread each for torch. Files stay whole, for their tests share fixtures, and come in
	@# order: the longest, the end-to-end run, is the first.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

test-slow: install  ## What takes longer: kill -9 in the middle of training, two clones with equal hashes, ...
	$(BIN)/python -m pytest -m slow

fuzz: install  ## Feed 2,000 broken clips to validate and extract; none may stop them
	$(BIN)/python -m tests.fuzz --mutations 2000 --seed 0

bench-extract: install  ## Clips per second of extract against a plain decoding loop, in one run
	$(BIN)/python benchmarks/extract.py

bench-full: install  ## Ingest, validate and extract 26,417 synthetic clips: time, memory, growth
	$(BIN)/python benchmarks/full_size.py

bench-verifier: install  ## Sentences per second of the reward against one padded batch, in one run
	$(BIN)/python benchmarks/verifier.py

bench-grpo: install  ## A GRPO step against re-encoding per completion and the released trainer's way, in one run
	$(BIN)/python -m benchmarks.grpo

test-fast: install  ## Unit and golden tests only, without the long ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not integration and not e2e and not slow and not long"

lint: install  ## ruff, mypy and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

stack-up: install  ## Start S3, MLflow and Prefect on 127.0.0.1
	$(BIN)/erv stack up

stack-down: install  ## Stop them; their state stays under .erv/
	$(BIN)/erv stack down

stack-status: install  ## Say what runs, and where
	$(BIN)/erv stack status

deploy: install  ## Register the deployment train/local with the Prefect server of the stack
	$(BIN)/erv run --deploy

worker: install  ## Run a Prefect worker for the deployment in the foreground
	$(BIN)/erv run --worker

doctor: install  ## Check stack, remote, tracking, disk and versions; say the remedy
	$(BIN)/erv doctor

clean:  ## Stop the stack and remove everything the pipeline made; keeps the virtual environment
	@if test -x $(BIN)/erv; then $(BIN)/erv stack down; fi
	rm -rf .erv data/manifest data/validation data/shards data/plots data/quarantine data/sentences.parquet
	rm -rf models eval report .dvc/cache .dvc/tmp .dvc/config.local
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build
	@# The lock files are yours to commit: those that git tracks stay.
	@for file in dvc.lock data/sources/*.lock.json; do git ls-files --error-unmatch "$$file" >/dev/null 2>&1 || rm -f "$$file"; done

distclean: clean  ## clean, and the virtual environment too
	rm -rf $(VENV)

lock: install  ## Write the versions of the present environment to requirements/
	$(BIN)/python infra/lock.py
