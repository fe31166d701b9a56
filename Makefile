# Everything a person or CI types. `make demo` and `make test` work from a clean clone.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# One thread a process: the tests run two at a time on two cores. Of the faults three, since many of them wait.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: setup demo test check faults bench pictures null-gpu llama-cpp gpu clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    set up, then train, fetch and smoke-test a small model on the embedded box"
	@echo "make test    set up, then check and run the whole suite"
	@echo "make setup   only prepare $(VENV)"
	@echo "make check   ruff, mypy, import contracts"
	@echo "make faults  every fault, with the figures, and 1,000 random histories (GPURUN_SEED=N repeats them)"
	@echo "make llama-cpp  gets and compiles llama.cpp, and runs the tests of export --gguf with it"
	@echo "make null-gpu  tests/gpu on a GPU that computes nothing (docs/null-gpu.md); TORCH=2.11.0 for another torch"
	@echo "make gpu     tests/gpu on the GPU of this machine; GPU_PYTHON=python for an interpreter that has torch"
	@echo "make pictures  the pictures of docs/pictures again, with Chromium"
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
	@# In the order of the folders: files of few long tests first, so that no core waits for one of them at the end.
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not slow"

faults: setup
	@# The trials of one random history wait much and are alike: they are dealt out one by one.
	GPURUN_SEED=$${GPURUN_SEED:-$$RANDOM} $(BIN)/python -m pytest -n 4 --dist load tests/faults/generated
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder tests/faults --ignore tests/faults/generated
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow tests/e2e

bench: setup
	$(BIN)/python -m tests.benchmarks

pictures: setup
	$(BIN)/python -m tests.pictures

# A CUDA build of torch and a CUDA runtime that computes nothing. Not part of `make test`.
TORCH ?= 2.13.0
CUDA_VENV ?= .venv-cuda
NULL_GPU := .null-gpu/$(TORCH)
GPU_PYTHON ?= $(BIN)/python
GPU_TESTS ?= tests/gpu
TABLE ?= tests/benchmarks/results/null_gpu.txt
# --confcutdir: nothing of tests/conftest.py, which needs sshd and rsync.
# A whole run of a large model takes minutes where fake tensors stand for those of a GPU.
PYTEST_GPU := -m pytest --confcutdir=tests/gpu -p no:cacheprovider --timeout=900

$(CUDA_VENV)/torch-$(TORCH):
	@echo "==> installing torch $(TORCH) with CUDA in $(CUDA_VENV): about 5 GB, one to three minutes. Remove it with: rm -r $(CUDA_VENV) .null-gpu"
	test -x $(CUDA_VENV)/bin/python || $(PYTHON) -m venv $(CUDA_VENV)
	@# Without PIP_FIND_LINKS, since a build for the CPU that lies there would be taken for the same version.
	env -u PIP_FIND_LINKS $(CUDA_VENV)/bin/python -m pip --disable-pip-version-check install --quiet torch==$(TORCH)
	grep -v '^torch==' constraints.txt > $(CUDA_VENV)/constraints.txt
	$(CUDA_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --constraint $(CUDA_VENV)/constraints.txt \
		torch==$(TORCH) transformers peft accelerate tensorboard pyarrow sacrebleu rouge-score jsonschema jinja2 pyyaml \
		nvidia-ml-py pytest pytest-timeout pytest-xdist
	@rm -f $(CUDA_VENV)/torch-* && touch $@

$(NULL_GPU)/nullgpu.so: $(CUDA_VENV)/torch-$(TORCH) tests/gpu/null/runtime.c tests/gpu/null/driver.c tests/gpu/null/build.py
	$(CUDA_VENV)/bin/python tests/gpu/null/build.py $(NULL_GPU)

null-gpu: $(NULL_GPU)/nullgpu.so
	env LD_LIBRARY_PATH=$(CURDIR)/$(NULL_GPU) LD_PRELOAD=$(CURDIR)/$(NULL_GPU)/nullgpu.so \
		$(CUDA_VENV)/bin/python $(PYTEST_GPU) -n 2 --table $(TABLE) $(GPU_TESTS)

gpu:
	$(GPU_PYTHON) $(PYTEST_GPU) --table gpu.txt $(GPU_TESTS)

# llama.cpp from PyPI, where the sources of llama-cpp-python hold all of it: its converter with its packages, and two programs to compile (20 minutes).
LLAMA_CPP := .llama-cpp/llama_cpp_python-0.3.36/vendor/llama.cpp

$(LLAMA_CPP)/build/bin/llama-server: | setup
	$(BIN)/pip download --no-deps --no-binary llama-cpp-python --dest .llama-cpp llama-cpp-python==0.3.36
	tar -xzf .llama-cpp/llama_cpp_python-0.3.36.tar.gz -C .llama-cpp
	$(PYTHON) -m venv $(LLAMA_CPP)/.venv
	$(LLAMA_CPP)/.venv/bin/pip install --quiet -r $(LLAMA_CPP)/requirements/requirements-convert_hf_to_gguf.txt
	cmake -S $(LLAMA_CPP) -B $(LLAMA_CPP)/build -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF
	cmake --build $(LLAMA_CPP)/build -j 2 --target llama-quantize llama-server

llama-cpp: $(LLAMA_CPP)/build/bin/llama-server
	LLAMA_CPP_DIR=$(CURDIR)/$(LLAMA_CPP) $(BIN)/python -m pytest tests/unit/workflow/exporting/test_gguf.py

demo: setup
	$(BIN)/python jobs/demo/run.py

clean:
	rm -rf $(VENV) .demo jobs/demo/data build dist *.egg-info
