# make repro   sets everything up and runs the pipeline
# make test    sets everything up and runs the tests
# make check   linters and types      make bench   frozen features against Keras
# make lock    pins the dependencies anew (needs uv)
# make image-check  the Dockerfile's steps in a plain folder, minutes
# make performance  every part against its alternatives, hours (docs/performance.md)
# make audit   known vulnerabilities of what is pinned, where a service can be asked; make sbom   what is installed
# make faults  whatever can go wrong, made to happen, hours (docs/reliability.md)
# make seed-table   Pawline against plain Keras on the seed recipes, hours (docs/seed-systems.md)

.PHONY: repro test check bench audit sbom faults image-check performance seed-table lock setup
.DEFAULT_GOAL := repro

# The first Python that fits; `make PYTHON=/path/to/python3.12 repro` chooses another.
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
FOUND = import sys; print(getattr(sys, "_base_executable", sys.executable))
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,$(shell $(p) -c '$(FITS)' 2>/dev/null && $(p) -c '$(FOUND)')))

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1

repro: setup
	@python -m flows.mending && dvc repro && echo "done: open reports/index.html; dvc metrics show prints the figures"

test: setup
	@pytest

check: setup
	@ruff check . && ruff format --check . && mypy && hadolint Dockerfile

bench: setup
	@python -m benchmarks.features

audit: setup
	@python -m tests.audit

sbom: setup
	@python -m lineage.sbom

faults: setup
	@folder=$$(mktemp -d) && PAWLINE_FAULTS=$$folder pytest tests/faults; code=$$?; \
		python -m tests.faults.results $$folder && rm -rf $$folder; exit $$code

image-check: setup
	@folder=$$(mktemp -d) && python -m tests.image_steps $$folder; code=$$?; rm -rf $$folder; exit $$code

performance: setup
	@python -m benchmarks.run_all

seed-table: setup
	@python -m benchmarks.seed_table

setup: .venv/installed

.venv/installed: requirements.lock pyproject.toml
	@$(or $(PYTHON),python3) -c '$(FITS)' 2>/dev/null || { echo "error: Pawline needs Python 3.11, 3.12 or 3.13; found $$($(or $(PYTHON),python3) --version 2>&1): install one, or name it: make PYTHON=python3.12" >&2; exit 1; }
	@echo "setting up .venv (two minutes the first time)" >&2
	@rm -rf .venv && $(PYTHON) -m venv .venv
	@pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@PYTHONWARNINGS=ignore pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		--config-settings editable_mode=compat --editable .
	@pip check --disable-pip-version-check > .venv/check.log || { cat .venv/check.log >&2; exit 1; }
	@touch $@

# Never with a registry's address in it: hashes say what is meant, wherever it comes from.
lock:
	@uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--extra cpu --extra dev pyproject.toml --output-file requirements.lock --quiet
