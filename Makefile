# Everything here sets up what it needs: a virtual environment in .venv, with the
# package and its compiled modules in it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py $(shell find audiohook -name '*.pyx' -o -name '*.pxd')

.PHONY: run test test-slow coverage demo build dev fuzz fuzz-parsers sanitize sanitize-short audit bench \
    bench-quick lint types wheel installed lambda screenshots clean help

help:
	@echo "make run        set up, and start the service"
	@echo "make test       set up, and run the tests"
	@echo "make demo       set up, and play one call through a service of its own"
	@echo "make build      set up only: .venv/bin/audiohook is there afterwards"
	@echo "make test-slow  the tests with real processes and real disks"
	@echo "make coverage   branches that the tests take, by room"
	@echo "make fuzz       20,000 examples of each differential test"
	@echo "make fuzz-parsers   all parsers, 10 minutes each (FUZZ_SECONDS, FUZZ_TARGETS)"
	@echo "make sanitize   the compiled modules under the compiler's sanitizers"
	@echo "make audit      known holes in what is installed (asks pypi.org)"
	@echo "make bench      all benchmarks, beside others' servers; half an hour at most"
	@echo "make bench-quick  some of each, in two minutes"
	@echo "make screenshots  the pictures of docs/page.md, of a service with simulated calls"
	@echo "make lambda     the zip of the function of docs/elsewhere.md"
	@echo "make installed  the wheel, in an environment of its own"
	@echo "make lint types wheel clean"

run: build
	@$(BIN)/audiohook serve

demo: build
	@$(BIN)/audiohook demo

# As many at a time as there are cores; WORKERS=0 runs them in one process, for pdb.
WORKERS ?= auto

test: dev
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow"

coverage: dev
	$(BIN)/python -m pytest -q -n $(WORKERS) -m "not slow" --cov --cov-report=
	@$(BIN)/coverage json -q -o build/coverage.json
	@$(BIN)/python .ci/branches.py build/coverage.json

# Four at a time on any machine: most of it waits.
test-slow: dev
	$(BIN)/python -m pytest -n 4 --dist worksteal -m slow

fuzz: dev
	HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest -q tests/test_divert.py \
	    tests/protocol/test_pong.py -k "wsproto_alone or slow_way or both_ways"

FUZZ_SECONDS ?= 600
FUZZ_TARGETS ?=

fuzz-parsers: dev
	@$(BIN)/python -m pip install -qq --group fuzz
	@$(BIN)/python -m tests.fuzz.every $(FUZZ_SECONDS) $(FUZZ_TARGETS)

sanitize: dev
	@.ci/sanitize

sanitize-short: dev
	@.ci/sanitize --short

# Everything that is installed here, what the tests use included.
audit: dev
	@$(BIN)/python -m pip install -qq --group audit
	@$(BIN)/python -m pip freeze --exclude-editable | $(BIN)/pip-audit -r /dev/stdin \
	    --no-deps --disable-pip --strict

bench: dev
	$(BIN)/python -m bench

bench-quick: dev
	$(BIN)/python -m bench --quick

# Of a service with simulated calls; needs chromium and asterisk-core-sounds-en-wav.
screenshots: dev
	$(BIN)/python -m tests.slow.screenshots

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: dev
	$(BIN)/mypy

wheel: dev
	rm -rf dist
	$(BIN)/python -m build

# What is in dist/, in an environment of its own.
installed: wheel
	.ci/installed

# The zip holds compiled modules: .venv has to be of the Python, and this machine of
# the kind, that the function runs on; see docs/elsewhere.md.
lambda: build
	rm -rf build/lambda dist/audiohook-lambda.zip
	mkdir -p dist
	$(BIN)/python -m pip install -q --target build/lambda .
	rm -rf build/lambda/bin
	$(BIN)/python -m compileall -q --invalidation-mode unchecked-hash build/lambda
	cd build/lambda && ../../$(BIN)/python -m zipfile -c ../../dist/audiohook-lambda.zip *
	@$(BIN)/python -c 'import platform as p; print("dist/audiohook-lambda.zip for python" + ".".join(p.python_version_tuple()[:2]), p.machine())'

build: $(VENV)/built
dev: $(VENV)/dev

$(VENV)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	    || { echo "Python 3.11 or newer is missing; install it, or name it: make PYTHON=/path/to/python3 …" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
	    || { echo "Python's venv module is missing; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@command -v "$${CC:-cc}" >/dev/null \
	    || { echo "A C compiler is missing; on Debian: apt-get install build-essential" >&2; exit 1; }
	@$(PYTHON) -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null \
	    || { echo "Python's C headers are missing; on Debian: apt-get install python3-dev" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --upgrade pip
	@touch $@

$(VENV)/built: $(VENV)/python $(SOURCES)
	@echo "Building into $(VENV) …"
	@$(BIN)/python -m pip install -qq --editable .
	@touch $@

$(VENV)/dev: $(VENV)/built pyproject.toml
	@$(BIN)/python -m pip install -qq --group dev
	@touch $@

clean:
	rm -rf $(VENV) .fuzz build dist *.egg-info audiohook/*.so audiohook/*.c \
	    audiohook/*/*.so audiohook/*/*.c audiohook/*/*/*.so audiohook/*/*/*.c
	find audiohook -name '*.html' -not -path 'audiohook/web/templates/*' -delete
