# Everything a person or CI types. `make demo` and `make test` work from a clean clone.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# One thread a process: the tests run two at a time on two cores. Of the faults three, since many of them wait.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: setup demo test check faults bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    set up, then train, fetch and smoke-test a small model on the embedded box"
	@echo "make test    set up, then check and run the whole suite"
	@echo "make setup   only prepare $(VENV)"
	@echo "make check   ruff, mypy, import contracts"
	@echo "make faults  every fault, with the figures, and 1,000 random histories (GPURUN_SEED=N repeats them)"
	@echo "make bench   gpurun beside what a person would type, as ratios"

$(VENV)/.ready: pyproject.toml constraints.txt .ci/setup
	.ci/setup $(PYTHON) $(VENV)
	@touch $@

setup: $(VENV)/.ready

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

faults: setup
	GPURUN_SEED=$${GPURUN_SEED:-$$RANDOM} $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder tests/faults

bench: setup
	$(BIN)/python -m tests.benchmarks

demo: setup
	$(BIN)/python jobs/demo/run.py

clean:
	rm -rf $(VENV) .demo jobs/demo/data build dist *.egg-info
