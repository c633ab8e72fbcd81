# `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --custom-compile-command 'make lock' pyproject.toml --extra native --extra ops --extra engines
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test quick soak check format up bench wire lock audit reference site screenshots clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/\1|\2/' | awk -F'|' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: $(READY) ## make .venv with exactly the packages of requirements.lock

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "hotswap needs Python 3.11, 3.12 or 3.13: make setup PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $(READY)

demo: setup ## the main job: train, gate, publish, hot swap, roll back
	@$(BIN)/python -m flows.demo

test: setup ## the whole test suite
	$(BIN)/python -m pytest -n 3 --dist loadgroup

quick: setup ## the tests that are not slow, for the inner loop
	$(BIN)/python -m pytest -n 3 --dist loadgroup -m "not slow"

soak: setup ## the tests of abuse, faults and the gate in their long form, with random fuzz
	$(BIN)/python -m pytest -n 0 --soak --timeout=3600 tests/faults tests/flows/backups tests/flows/fleet tests/flows/gate tests/flows/promotion/test_approval.py tests/flows/recipes tests/flows/search tests/flows/tables tests/flows/test_api.py tests/flows/training tests/docs/test_drift_page.py tests/docs/test_fleet_page.py tests/docs/test_tutorial.py tests/docs/test_upgrade.py tests/end_to_end/test_compose_commands.py tests/end_to_end/test_demo.py tests/end_to_end/test_secrets.py tests/end_to_end/test_triggers.py tests/flows/local/test_stack.py tests/serving/runtime/test_row_independence_property.py

check: setup ## format, lint, types, import contract, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) test

format: setup ## let ruff format and fix the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

up: setup ## model server, MLflow page and Prefect server, until Ctrl-C
	@$(BIN)/hotswap up

bench: setup ## measure every number of docs/benchmark.md
	$(BIN)/python -m tests.benchmarks

wire: setup ## generate serving/protocol/wire_pb2.py from serving/protocol/wire.proto again
	$(BIN)/python -m grpc_tools.protoc --proto_path=. --python_out=. --pyi_out=. serving/protocol/wire.proto

lock: setup ## resolve pyproject.toml into requirements.lock and requirements-runtime.lock again
	$(COMPILE) --extra dev --output-file requirements.lock
	$(COMPILE) --constraints requirements.lock --no-annotate --output-file requirements-runtime.lock

audit: setup ## hold the packages of the lock against the known vulnerabilities, where osv.dev can be reached
	@.ci/audit

reference: setup ## write docs/reference.md and the index of the decisions again, from the code
	$(BIN)/python -m tests.docs.reference

site: setup ## the documentation as a site in site/, without network
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict && echo "open site/index.html"

screenshots: setup ## take the pictures of the README again, with Chromium
	HOTSWAP_SCREENSHOTS=docs/images $(BIN)/python -m pytest -n 0 tests/end_to_end/test_browser.py

clean: ## remove .venv, caches and local state (models_repo stays)
	rm -rf $(VENV) .hotswap .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
