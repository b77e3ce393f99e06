# Every command sets itself up: a virtual environment in .venv, filled by pip, made anew when a pyproject.toml changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# A second one, for tests alone: what cannot be installed beside the libraries of the first.
LITELLM := .venv-litellm
LITELLM_READY := $(LITELLM)/.ready
# One more than there are cores, five at most: tests of real processes wait for these half of their time.
WORKERS ?= $(shell cores=$$(getconf _NPROCESSORS_ONLN); echo $$((cores < 4 ? cores + 1 : 5)))

.DEFAULT_GOAL := help
.PHONY: help run test test-frameworks properties lint model bench bench-proxies bench-sdks kill-rounds stop-and-restart convergence simulate large-books compare clean

help: ## Say what each command does.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18

run: $(READY) ## Meter a real LLM workload with three real agents, kill one, and audit the books (ONCE=1 exits at the end).
	@$(BIN)/python -m examples.quickstart

# With the interpreter's own cache: hundreds of short-lived programs would compile this house anew.
test: export PYTHONDONTWRITEBYTECODE =
test: $(READY) ## Run the tests: rules, programs, faults, both databases, Kubernetes, style.
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not frameworks" $(ARGS)

test-frameworks: export PYTHONDONTWRITEBYTECODE =
test-frameworks: $(READY) $(LITELLM_READY) ## Run the tests inside LangChain, LiteLLM's proxy, and the OpenAI SDK 2.x: big programs that take minutes to start.
	$(BIN)/pytest -m frameworks $(ARGS)

properties: $(READY) ## Look for counterexamples to every property with fresh dice: long (ARGS="tests/protocol" for some).
	$(BIN)/pytest -n $(WORKERS) --dist loadfile -m "hypothesis and not frameworks" --hypothesis-profile search $(ARGS)

lint: $(READY) ## Check formatting, lint, types and layers alone.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

model: $(READY) ## Visit every state of small worlds of the lease protocol, and break each rule once (LARGE=1 for larger worlds).
	@$(BIN)/python -m tests.model.run $(if $(LARGE),--large)

bench: $(READY) ## Measure decisions beside a bare echo server and Redis, events to disk, and memory (ARGS=--quick for a glance).
	$(BIN)/python tests/benchmarks/run.py $(ARGS)

SIMULATE = --seeds $(or $(SEEDS),20) $(if $(HOURS),--hours $(HOURS)) $(if $(AGENTS),--agents $(AGENTS)) \
  $(if $(SEED),--seed $(SEED) --trace) $(if $(CROWDED),--crowded) $(if $(MUTATIONS),--mutations)

simulate: $(READY) ## Real agents and a real control plane in simulated storms (SEEDS=n HOURS=h AGENTS=n SEED=k CROWDED=1 MUTATIONS=1).
	$(BIN)/python -m tests.simulation.run $(SIMULATE) $(ARGS)

bench-proxies: $(READY) $(LITELLM_READY) ## Measure model calls through the agent's proxy beside direct ones, nginx, Envoy, HAProxy, Caddy and LiteLLM (ARGS="--rounds 1" for a glance).
	$(BIN)/python tests/benchmarks/model_proxies.py $(ARGS)

bench-sdks: $(READY) ## Measure what metering adds to a call of the OpenAI SDK, in the process and through the proxy.
	$(BIN)/python tests/benchmarks/model_sdks.py $(ARGS)

kill-rounds: $(READY) ## Kill an agent 100 times under load and compare what callers were told with the ledger.
	$(BIN)/python tests/benchmarks/kill_rounds.py $(ARGS)

stop-and-restart: $(READY) ## Stop an agent that holds thousands of leases, and kill one: how fast all are home (ARGS=--leases=1000).
	$(BIN)/python tests/benchmarks/stop_and_restart.py $(ARGS)

convergence: $(READY) ## Measure how fast plan changes reach 200 running agents (ARGS="--agents 50" for fewer).
	$(BIN)/python tests/benchmarks/convergence.py $(ARGS)

large-books: $(READY) ## Measure reads beside ten million events in PostgreSQL (ARGS="--customers 1000 --events 100000" for a glance).
	$(BIN)/python tests/benchmarks/large_books.py $(ARGS)

compare: $(READY) ## Set ways of sharing an allowance beside each other: a table and a plot (ARGS=--quick for a glance).
	$(BIN)/python -m tests.comparison.run $(ARGS)

clean: ## Remove the virtual environments and everything that was made.
	rm -rf $(VENV) $(LITELLM) var tests/benchmarks/build

$(READY): pyproject.toml client/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; name one with PYTHON=..."; exit 1; }
	@echo "Setting up $(VENV) (about a minute, once) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -e ".[dev]" -e ./client
	@touch $(READY)

$(LITELLM_READY): tests/environments/litellm.txt
	@echo "Setting up $(LITELLM) (half a minute, once) ..."
	@rm -rf $(LITELLM)
	@$(PYTHON) -m venv $(LITELLM)
	@$(LITELLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile -r $<
	@echo "$(CURDIR)/client" > "$$($(LITELLM)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/allotment.pth"
	@touch $(LITELLM_READY)
