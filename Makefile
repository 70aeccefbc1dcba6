# `make demo` and `make test` set up everything they need in .venv; nothing else is required but Linux, Python and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# onnxruntime-gpu also runs without a GPU, but has wheels for Linux on x86-64 only.
RUNTIME := $(if $(and $(filter Linux,$(shell uname -s)),$(filter x86_64,$(shell uname -m))),gpu,cpu)
STAMP := $(VENV)/.installed-$(RUNTIME)

.PHONY: help browser check demo test test-slow lint types wheel clean

help:
	@echo "make demo       prune the model in the package and compare it with the dense one"
	@echo "make check      lint, types and the tests of what has changed, while you work"
	@echo "make test       lint, types and the tests"
	@echo "make test-slow  the tests that take minutes"
	@echo "make browser    install Chromium, in which tests look at the report; without it they are skipped"
	@echo "make wheel      build the wheel into dist/"

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[$(RUNTIME),dev]"
	touch $@

demo: $(STAMP)
	$(BIN)/onnx-subprune demo --out demo-out

# Two workers share two cores: a BLAS with threads of its own would only get in the way of the other worker.
test: $(STAMP) lint types
	OPENBLAS_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile -m "not slow"

# Types from the cache: their shares are counted in `make test`.
check: $(STAMP) lint
	$(BIN)/mypy
	OPENBLAS_NUM_THREADS=1 $(BIN)/python tools/changed_tests.py

test-slow: $(STAMP)
	$(BIN)/pytest -m slow

# Debian's package, as root or with sudo that asks for nothing. Not a step of `make test`: that installs into .venv only.
BROWSER := $(firstword $(foreach name,chromium chromium-browser google-chrome,$(shell command -v $(name) 2>/dev/null)))
browser:
ifeq ($(BROWSER),)
	command -v apt-get > /dev/null
	$(if $(filter 0,$(shell id -u)),,sudo -n) sh -c 'export DEBIAN_FRONTEND=noninteractive; \
	    apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium > /dev/null'
else
	@echo "$(BROWSER)"
endif

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --cache-dir .mypy_cache/imports

types: $(STAMP)
	$(BIN)/mypy --any-exprs-report .mypy_cache/any
	$(BIN)/python tools/typed.py .mypy_cache/any

wheel: $(STAMP)
	$(BIN)/python -m build --wheel

clean:
	rm -rf $(VENV) build dist demo-out *.egg-info
