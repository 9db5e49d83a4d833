# Every target does its own set-up: it needs only python3 (3.11 or newer, with venv) and make.
PYTHON ?= python3
V := .venv
PIP := $(V)/bin/python -m pip --disable-pip-version-check -q
# Tests wait half of their time: for processes to start, for leases to run out.
WORKERS ?= 4
PACKAGES := domain application infrastructure interfaces

.DEFAULT_GOAL := help
.PHONY: help demo serve test check package-check fmt lint types docs-check reference kafka test-kafka lock faults faults-quick simulate schemathesis bench bench-peers clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /|/' | \
	  while IFS='|' read -r target text; do printf '  make %-15s %s\n' "$$target" "$$text"; done

demo: $(V)/.run ## run a real workflow to its end on an embedded SQLite file
	@$(V)/bin/flowledger demo

serve: $(V)/.run ## serve the REST interface on the embedded SQLite file
	@$(V)/bin/flowledger serve

test: $(V)/.dev ## run the tests on SQLite and PostgreSQL
	@$(V)/bin/python -m pytest -q -n $(WORKERS) --dist worksteal

check: lint types docs-check test ## all that must hold before a change is merged

lint: $(V)/.dev
	$(V)/bin/ruff check .
	$(V)/bin/ruff format --check .
	$(V)/bin/lint-imports --no-logo

types: $(V)/.dev
	$(V)/bin/mypy

docs-check: $(V)/.dev
	@if test -e tests/test_docs.py; then $(V)/bin/python -m pytest -q tests/test_docs.py; fi

package-check: $(V)/.dev ## build the wheel, install it elsewhere, run the demo from it
	$(V)/bin/python tools/package_check.py

fmt: $(V)/.dev ## format the code and apply the safe fixes
	$(V)/bin/ruff check --fix-only .
	$(V)/bin/ruff format .

faults-quick: $(V)/.dev ## the quick forms of all faults (minutes)
	$(V)/bin/python -m pytest -q --processes-too tests/faults

faults: $(V)/.dev ## break what the engine stands on, fault after fault (an hour; KEEP=folder)
	$(V)/bin/python -m tests.faults all --keep $(or $(KEEP),var/faults)
	$(V)/bin/python -m tests.faults.kill9

simulate: $(V)/.dev ## live through 10,000 seeds of the simulation (SEEDS=1-10000)
	$(V)/bin/python -m tests.simulation --seeds $(or $(SEEDS),1-10000) --processes $(WORKERS)

test-kafka: $(V)/.dev ## walk through four programs and a real Kafka broker; needs java and mvn
	$(V)/bin/python -m pytest -q -n $(WORKERS) --processes-too \
	  tests/e2e/test_kafka.py tests/e2e/test_kafka_agent.py \
	  tests/contracts/test_transport.py tests/contracts/test_publisher.py tests/contracts/test_relay.py \
	  tests/faults/test_messages_shuffled.py

kafka: $(V)/.dev ## run a real Kafka broker until Ctrl-C (PORT=9092); needs java and mvn
	$(V)/bin/python -m tests.kafka.broker --port $(or $(PORT),9092)

schemathesis: $(V)/.dev ## send 5,000 generated requests to a real server
	$(V)/bin/python -m pytest -q -s --timeout 1800 tests/interfaces/http/test_schemathesis.py --heavy

bench: $(V)/.dev ## measure speed and memory on both back ends (hours; each has --quick)
	$(V)/bin/python -m benchmarks.core
	$(V)/bin/python -m benchmarks.limits
	$(V)/bin/python -m benchmarks.executions
	$(V)/bin/python -m benchmarks.workers
	$(V)/bin/python -m benchmarks.agents
	$(V)/bin/python -m benchmarks.recovery
	$(V)/bin/python -m benchmarks.fanout
	$(V)/bin/python -m benchmarks.growth

bench-peers: $(V)/.dev ## measure beside other engines, installed from benchmarks/peers.txt; needs npm
	$(V)/bin/python -m benchmarks.peers --cache $(V)/peers

# Superset first: some extras pin shared packages to one patch release.
LOCK := $(V)/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-annotate --no-header
lock: export UV_PYTHON_DOWNLOADS = never
lock: $(V)/.dev ## solve the locked requirements anew (UPGRADE=1 takes the newest releases)
	$(LOCK) $(if $(UPGRADE),--upgrade) pyproject.toml --all-extras --group dev -o requirements/dev.txt
	$(LOCK) pyproject.toml --group build -c requirements/dev.txt -o requirements/run.txt
	$(LOCK) pyproject.toml --extra kafka --group build -c requirements/dev.txt -o requirements/image.txt

clean: ## remove the environment, caches and the demo's files
	rm -rf $(V) var build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(V)/.venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "flowledger needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Install one and name it: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' has no venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(V)
	@touch $@

$(V)/.run: requirements/run.txt pyproject.toml | $(V)/.venv
	@echo "Installing the locked packages into $(V) (once) ..."
	@$(PIP) install --require-hashes -r requirements/run.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(V)/.dev: requirements/dev.txt $(V)/.run
	@echo "Installing the locked development packages into $(V) (once) ..."
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@

reference: $(V)/.dev ## write the pages of docs/reference that are made from the code
	$(V)/bin/python -m tools.generate_reference
	$(V)/bin/python -m tools.cli_reference
