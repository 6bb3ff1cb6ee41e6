# make test      everything that CI runs; sets up what it needs first
# make test-platforms  the main job on aarch64, Python 3.14 and 3.15, PyPy and musl (no part of make test)
# make check     the linters and the type checker only
# make fuzz      every reader of foreign text with random text, a minute each (no part of make test)
# make pyz       dist/awsvault.pyz, for every platform it serves
# make demo      the main job against a local STS
# make bench     the benchmarks of docs/performance.md
# make lock      renew requirements/*.txt
# make clean     remove what the above made

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := test
.PHONY: test test-platforms check fuzz pyz demo bench lock clean test-tools

# The first Python that really runs and is new enough. A name on PATH may be a shim without a
# version behind it, so ask each candidate for its own path.
find_python = for name in python3 python3.11 python3.12 python3.13 python3.10 python3.14 python3.9 \
    python3.15 /usr/bin/python3 "$$HOME"/.pyenv/versions/*/bin/python; do \
    "$$name" -c 'import sys; print(sys.executable) if sys.version_info >= (3, 9) else sys.exit(1)' \
    2>/dev/null && exit; done; echo no-python
ifeq ($(origin PYTHON), undefined)
PYTHON := $(shell $(find_python))
endif

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

SOURCES := awsvault.py build_zipapp.py __main__.py
# One more than there are processors: some tests wait.
PYTEST_WORKERS ?= $(shell echo $$(( $$(nproc 2>/dev/null || echo 2) + 1 )))
PYTEST_ARGS ?=

test: .venv/stamp .venv-awscli/stamp test-tools
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/python -m pytest -n $(PYTEST_WORKERS) $(PYTEST_ARGS)

test-platforms: dist/awsvault.pyz .venv/stamp
	.ci/test-platforms $(PLATFORMS)

check: .venv/stamp
	.venv/bin/ruff check .
	.venv/bin/mypy

FUZZ_SECONDS ?= 60
fuzz: .venv/stamp
	.venv/bin/python -m tests.foreign $(FUZZ_SECONDS)

pyz: dist/awsvault.pyz
	@.venv/bin/python build_zipapp.py --show --output $<

dist/awsvault.pyz: $(SOURCES) LICENSE requirements/runtime.txt | .venv/stamp
	.venv/bin/python build_zipapp.py --output $@ >/dev/null

demo: dist/awsvault.pyz .venv/stamp .venv-awscli/stamp
	.venv/bin/python benchmarks/demo.py

bench: dist/awsvault.pyz .venv/stamp .venv-awscli/stamp .venv-awsume/stamp
	.venv/bin/python benchmarks/bench.py

# The daemons and tools that the tests talk to.
test-tools:
	@.ci/test-tools

# One rule per environment, each of its own lock: the AWS CLI and awsume pin botocore.
.venv/stamp: requirements/dev.txt
.venv-awscli/stamp: requirements/awscli.txt
.venv-awsume/stamp: requirements/awsume.txt
.venv/stamp .venv-awscli/stamp .venv-awsume/stamp: | .build/venv-works
	@echo "setting up $(@D) from $<"
	@"$(PYTHON)" -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install -q --only-binary=:all: --require-hashes -r $<
	@touch $@

# Debian's python3 comes without venv and pip.
.build/venv-works:
	@.ci/python-venv "$(PYTHON)"
	@mkdir -p $(@D) && touch $@

# uv resolves for all platforms and Pythons at once; it is not needed for anything else.
lock: .build/uv/stamp
	cd requirements && for name in runtime dev awscli awsume; do \
	    ../.build/uv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.9.18 \
	    --generate-hashes --no-emit-index-url --no-annotate --no-header \
	    $$name.in --output-file $$name.txt; done

.build/uv/stamp: | .build/venv-works
	@"$(PYTHON)" -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install -q uv
	@touch $@

clean:
	rm -rf .build .venv .venv-awscli .venv-awsume dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
