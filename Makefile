# The whole developer interface: make env | start | test | check | fix | lock | bench-start | bench-training
PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
INDEX := $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX),)

.PHONY: env start test check fix lock wheel bench-start bench-training

env: $(VENV)/.ready  ## prepare .venv: exact pins, checked by hash; torch apart, so that its build is your choice

$(VENV)/.ready: requirements.txt pyproject.toml
	@echo "Preparing $(VENV): about 300 MB of packages and torch (about 200 MB for the CPU build;"
	@echo "the CUDA build is several GB: for a machine without GPU see 'The CPU build of torch' in README)."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(INDEX) torch==2.13.0
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

start: env  ## the whole loop, in front of you
	@$(BIN)/amenable start

test: env  ## all tests, one process a core
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=auto --dist=worksteal

check: env  ## lint, types, layers, declared dependencies
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/basedpyright --level error
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/deptry --no-ansi src

fix: env  ## what a machine can mend
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

wheel: env  ## dist/amenable-*.whl
	@rm -rf build
	@$(BIN)/python -m build --wheel --no-isolation --outdir dist

lock:  ## requirements.txt anew from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --extra train --extra qlora --group dev --universal --python-version 3.11 \
	  --exclude-newer "$$(date -u -d '7 days ago' +%Y-%m-%d)" --overrides requirements.overrides \
	  --generate-hashes --no-annotate --no-header --no-emit-package torch --output-file requirements.txt

bench-start: env  ## the figures of docs/experiments.md, measured here
	@$(BIN)/python -m benchmarks.start

ONLY := $(if $(ROW),--row $(ROW)) $(if $(PEER),--peer $(PEER)) $(if $(MODEL),--model $(MODEL)) $(if $(COLUMN),--column $(COLUMN)) $(if $(TEXTS),--texts $(TEXTS))

bench-training: env  ## docs/benchmarks.md: training against its peers; ROW= PEER= MODEL= COLUMN= TEXTS= choose
	@$(BIN)/python -m benchmarks.training $(ONLY)
