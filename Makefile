# Every recipe works from a fresh clone, inside the virtual environment .venv, and does again only what has changed.
# Written for GNU make 3.81 (macOS) and newer.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && exit; done; echo python3)
CXX ?= c++
CONSTRAINTS ?= constraints.txt
ARGS ?=
PYTEST_ARGS ?=
PROCESSES ?= $(shell getconf _NPROCESSORS_ONLN)
SANITIZE ?= address,undefined

VENV := .venv
BIN := $(VENV)/bin
# Stamps live in what they speak of, so that deleting the folder is enough to start again.
HAVE_BUILD := $(VENV)/.have-build
HAVE_EXAMPLES := $(VENV)/.have-examples
HAVE_DEV := $(VENV)/.have-dev
PEERS_VENV := .venv-peers
HAVE_PEERS := $(PEERS_VENV)/.have-peers
INSTALLED := $(VENV)/.installed
COMPILED := build/.compiled

INSTALL := $(BIN)/python -m pip install --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
CMAKE := $(BIN)/cmake
# The kernels are those of the extension, not compiled anew: what is tested and counted is what ships.
CONFIGURE = $(CMAKE) -S . -B build/cmake -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	-DKETGRAD_EXTENSION_OBJECTS=$(CURDIR)/build/ext-$(shell $(BIN)/python -c 'import sys; print(sys.implementation.cache_tag)')
# Some circuits are spread over two threads. One that waits leaves its core to the other processes.
PYTEST = OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal
CPP_FILES = $(shell find csrc cuda tests/csrc tests/cuda benchmarks/csrc \
	-name '*.cpp' -o -name '*.cu' -o -name '*.h')
LIBRARY_FILES := $(shell find csrc cuda -type f ! -name '*.py' 2>/dev/null)

# ninja and cmake are the ones in the environment.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export CXX

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help check environment build demo docs bench accuracy peers count test test-cpp test-fast test-python lint \
	oldest-check cuda-check ptx-check gpu-check format sanitize fuzz sweep clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1:/p' $(MAKEFILE_LIST) | awk -F: '{ printf "make %-12s %s\n", $$1, $$2 }'

check:  ## say in one line what this machine lacks
	@missing=''; \
	if ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		missing="$$missing, Python 3.11 or newer (or name it: make PYTHON=...)"; \
	else \
		$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || missing="$$missing, Python's venv module (python3-venv)"; \
		$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' \
			2>/dev/null || missing="$$missing, Python's C headers (python3-dev)"; \
	fi; \
	printf '#include <concepts>\n#include <span>\ntemplate <std::integral T> T f(T x) { return x; }\nint main() { return f(0); }\n' \
		| $(CXX) -std=c++20 -x c++ -fsyntax-only - 2>/dev/null \
		|| missing="$$missing, a C++20 compiler such as g++ 12 (or name it: make CXX=...)"; \
	if [ -n "$$missing" ]; then echo "ketgrad needs$${missing#,}" >&2; exit 1; fi

build: $(INSTALLED) $(COMPILED)  ## install ketgrad into .venv, editable, and compile what has changed

environment: $(HAVE_DEV)  ## make .venv, with all that work on a checkout needs

demo: build $(HAVE_EXAMPLES)  ## train the digits classifier (ARGS=--help lists its options)
	$(BIN)/python examples/digits.py $(ARGS)

test: test-cpp test-python  ## run every test

test-cpp: build $(HAVE_DEV)  ## run the C++ tests
	$(CONFIGURE)
	$(CMAKE) --build build/cmake
	$(BIN)/ctest --test-dir build/cmake --parallel $(PROCESSES) --output-on-failure

test-python: build $(HAVE_DEV)  ## run the Python tests (PYTEST_ARGS="-k name" selects; PROCESSES=0 for a debugger)
	$(PYTEST) $(PYTEST_ARGS)

test-fast: build $(HAVE_DEV)  ## run the Python tests that are neither slow nor on a GPU: the inner loop
	$(PYTEST) -m 'not slow and not on_gpu' $(PYTEST_ARGS)

docs: build $(HAVE_DEV)  ## build the documents and the reference as a website, in build/docs
	$(BIN)/python -m sphinx -W --keep-going -q docs build/docs

bench: build $(HAVE_EXAMPLES)  ## time ketgrad beside the libraries of make peers (ARGS=--quick takes minutes)
	$(BIN)/python benchmarks/run.py $(ARGS)

count: build $(HAVE_DEV)  ## compare instruction counts with those on file (ARGS=--update writes them anew); needs valgrind
	$(CONFIGURE)
	$(CMAKE) --build build/cmake --target driver
	$(BIN)/python benchmarks/count.py build/cmake/driver $(ARGS)

accuracy: build $(HAVE_DEV)  ## measure errors of values, gradients and norms (ARGS=--quick takes a minute)
	$(BIN)/python benchmarks/accuracy.py $(ARGS)

peers: $(HAVE_PEERS)  ## install the libraries that make bench compares with, into .venv-peers

lint: $(HAVE_DEV)  ## check style, types, import directions and workflows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CPP_FILES)
	$(BIN)/mypy
	PYTHONPATH=python $(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/zizmor --offline --quiet .github/workflows

oldest-check: $(HAVE_BUILD)  ## compile against the headers of the oldest torch, which are downloaded once
	$(BIN)/python csrc/oldest_check.py

cuda-check: $(HAVE_BUILD)  ## compile the CUDA sources and list what their kernels take; needs nvcc, no GPU
	$(BIN)/python cuda/compile_check.py $(ARGS)

ptx-check: build $(HAVE_DEV)  ## run the CUDA engine's tests on nvcc's PTX (ARGS=--barriers takes each out); needs nvcc, no GPU
	$(CONFIGURE)
	$(BIN)/python cuda/ptx_check.py $(ARGS)

# With the Python that has the CUDA build of PyTorch, not with .venv: nothing is installed for it.
gpu-check:  ## build, test and time on a GPU (ARGS=--quick is shorter; PYTHON=... names a Python with CUDA torch)
	$(PYTHON) benchmarks/gpu_check.py $(ARGS)

format: $(HAVE_DEV)  ## rewrite the files as `make lint` wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP_FILES)

sanitize: $(HAVE_DEV)  ## run the C++ tests under sanitizers (SANITIZE=thread for the other kind)
	$(CMAKE) -S . -B build/sanitize -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DKETGRAD_SANITIZE=$(SANITIZE)
	$(CMAKE) --build build/sanitize
	$(BIN)/ctest --test-dir build/sanitize --parallel $(PROCESSES) --output-on-failure

fuzz: build $(HAVE_DEV)  ## compare random circuits with a dense simulator for SECONDS, from SEED on (by default the time)
	$(CONFIGURE)
	$(CMAKE) --build build/cmake --target test_random
	build/cmake/test_random $(or $(SECONDS),60) $(or $(SEED),$(shell date +%s))

sweep: build $(HAVE_DEV)  ## compare CIRCUITS random circuits with the oracle through Python, from SEED on (by default the time)
	$(BIN)/python tests/sweep.py --circuits $(or $(CIRCUITS),2000) $(if $(SEED),--seed $(SEED))

clean:  ## remove what was built; .venv stays
	rm -rf build dist python/ketgrad.egg-info python/ketgrad/_C*.so $(INSTALLED)

# `pip install --group` came with pip 25.1, and a new environment holds the pip of its Python.
$(HAVE_BUILD): pyproject.toml $(CONSTRAINTS) | check
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	$(INSTALL) --group build
	touch $@

$(HAVE_EXAMPLES): $(HAVE_BUILD)
	$(INSTALL) --group examples
	touch $@

$(HAVE_DEV): $(HAVE_BUILD)
	$(INSTALL) --group dev
	touch $@ $(HAVE_EXAMPLES)

# An environment of its own: what the peers need of each other is not for the tests to depend on. The interpreter is that
# of .venv, for which the extension is compiled.
$(HAVE_PEERS): $(HAVE_BUILD) pyproject.toml $(CONSTRAINTS)
	test -x $(PEERS_VENV)/bin/python || $(BIN)/python -m venv $(PEERS_VENV)
	$(PEERS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	$(PEERS_VENV)/bin/python -m pip install --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) --group peers
	touch $@

# The compiler's own output is worth seeing, and pip hides it: compile first, then let pip find everything up to date.
$(COMPILED): $(HAVE_BUILD) setup.py $(LIBRARY_FILES) | check
	$(BIN)/python setup.py build_ext --inplace
	touch $@

$(INSTALLED): $(HAVE_BUILD) setup.py | $(COMPILED)
	$(INSTALL) --quiet --no-deps --no-build-isolation --editable .
	touch $@
