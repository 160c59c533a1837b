# A few commands are enough: `make demo`, `make study` and `make test`. Each sets up what it needs and says what it does.
PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python
READY  := $(VENV)/.ready
BART   := $(VENV)/.bart-sought
TOOLS  := $(VENV)/.tools-sought
# What a target is told stands after `make`. It is not taken from the environment, where such names are other programs'.
DATA   :=
DEMO   :=
TESTS  :=
SETTINGS :=
RAY    :=
IMAGE  :=
DRY    :=
OUT    := build/gpu-check.json
# Without a network there is no .venv to make: the Python that is named, else that of .venv, else what PYTHON is.
GPU_PYTHON = $(if $(filter file default,$(origin PYTHON)),$(or $(wildcard $(RUN)),$(PYTHON)),$(PYTHON))
# Of a yes or no, whatever is neither is refused.
dry = $(if $(filter-out 0 1,$(DRY)),$(error DRY=$(DRY): must be 1 or 0. DRY=1 takes every step on tiny sizes on a CPU))$(if $(filter 1,$(DRY)),--dry)
export RAY_USAGE_STATS_ENABLED := 0

.DEFAULT_GOAL := help
.PHONY: help install bart tools api-server demo study test test-charts test-ray lint format bench gpu-check chart-readme pipeline lock clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(READY) $(BART)  ## make .venv with everything the demo, the tests and the benchmarks need

$(READY): pyproject.toml .ci/constraints.txt
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info < (3, 14); ok or sys.exit("echotrain needs Python 3.11 to 3.13, this is %d.%d; say make PYTHON=python3.12" % sys.version_info[:2])'
	@echo ">> making $(VENV) (the first time this downloads PyTorch and Ray: a few minutes)"
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV) || { echo "python venv is missing; on Debian: apt-get install python3-venv"; exit 1; }
	@$(RUN) -m pip install -qq --disable-pip-version-check -c .ci/constraints.txt -e '.[dev]'
	@# The public reference for parity tests and benchmarks; its own pins (torchvision, an old Lightning) are not needed for its models.
	@# W&B's sweeps are installed for their schema alone, which every file in sweeps/ is held against.
	@$(RUN) -m pip install -qq --disable-pip-version-check --no-deps -c .ci/constraints.txt fastmri sweeps
	@touch $@

bart: $(READY)  ## unpack the BART toolbox, which ESPIRiT needs, into .venv (Debian, Ubuntu; no root)
	@.ci/get_bart $(VENV)

# Sought once; where it cannot be had, `make bart` tries again.
$(BART): .ci/get_bart $(READY)
	@.ci/get_bart $(VENV)
	@touch $@

tools: $(READY)  ## fetch helm 3, helm 4, kubectl, checkov and promtool into the cache of this user, ~/.cache/echotrain (no root)
	@$(RUN) .ci/get_tools
	@.ci/get_checkov $(RUN)
	@.ci/get_promtool

# Sought once, as BART is.
$(TOOLS): .ci/get_tools .ci/tools.txt .ci/get_checkov .ci/checkov.txt .ci/get_promtool $(READY)
	@$(RUN) .ci/get_tools
	@.ci/get_checkov $(RUN)
	@.ci/get_promtool
	@touch $@

api-server:  ## build a Kubernetes API server for tests into that cache (Debian; about 12 minutes, once; no root)
	@.ci/get_api_server

pipeline:  ## compile the Kubeflow pipeline, with kfp in an environment of its own (IMAGE=...)
	@k8s/pipelines/compile $(IMAGE)

demo: $(READY)  ## simulate scans (or DATA=folder of your own; DEMO=cine: hearts), prepare into S3, train, evaluate, report
	@$(RUN) -m ray_jobs.demo $(if $(DATA),--data '$(DATA)') $(if $(DEMO),--demo '$(DEMO)')

study: $(READY) $(BART)  ## MosaicMRI's study in small, on simulated scans: scaling, transfer, baselines, filtering (SETTINGS=...)
	@$(RUN) -m ray_jobs.study mosaic_simulated $(SETTINGS)

test: $(READY) $(BART) $(TOOLS)  ## run every test that this machine can run, in two processes (TESTS=tests/unit: some of them)
	@# A file's tests share what is slow to make: its clusters, stores and runs. By file, as groups by mark do nothing with pytest 9.2.
	@$(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(TESTS)

test-charts: $(READY) tools api-server  ## test the Helm chart and what stands on Kubernetes, on a real API server where it can be had
	@$(RUN) -m pytest tests/charts

test-ray: $(READY)  ## run the tests that need Ray against another one, in an environment of its own (RAY=newest or RAY=2.59.0; TESTS=...)
	@.ci/test_ray $(VENV) '$(RAY)' $(TESTS)

lint: $(READY)  ## ruff, mypy --strict, import-linter
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache

format: $(READY)  ## let ruff put the code in order
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: $(READY)  ## measure against the baselines and print one table
	@$(RUN) -m ray_jobs.bench all

gpu-check:  ## check and measure what only a GPU can tell; no Ray, no network, under 8 minutes (PYTHON=python3; DRY=1: tiny, on a CPU)
	@PYTHONPATH=library:.$${PYTHONPATH:+:$$PYTHONPATH} $(GPU_PYTHON) -m ray_jobs.gpu_check --out '$(OUT)' $(dry)

chart-readme: $(READY)  ## write the chart's README from its template and the comments in values.yaml
	@$(RUN) .ci/chart_readme helm/echotrain

lock: $(READY)  ## write what is installed now to .ci/constraints.txt
	@$(RUN) -m pip freeze --exclude-editable | sed -E 's/^(torch==[0-9.]+)\+.*/\1/; /^nvidia-|^triton/d' > .ci/constraints.txt

clean:  ## remove what was built; keep .venv, runs and wandb
	rm -rf build .mypy_cache .ruff_cache .pytest_cache
