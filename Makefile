# Plain `make` lists the targets. Each prepares what it needs; only Python 3.11 to 3.14 and make must be there.

EXCHANGE ?= binance
SYMBOLS ?= BTC,ETH
NAMES ?= DNS:redis,DNS:localhost,IP:127.0.0.1
MINUTES ?= 60
SEED ?= 1
PYTEST ?=
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c '$(SUPPORTED)' 2>/dev/null && { echo $$python; break; }; done)

# The newest one: some of the clients have no wheel for an older one.
CLIENTS_PYTHON ?= $(shell for minor in 14 13 12 11; do \
	for python in python3.$$minor "$$HOME"/.pyenv/versions/3.$$minor.*/bin/python3; do \
		"$$python" -c '$(SUPPORTED)' 2>/dev/null && { echo "$$python"; break 2; }; done; done)

SUPPORTED = import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
CLIENTS := .venv-clients

.PHONY: help demo smoke soak feeder runner redis redis-stop acl certificates test test-slow test-simulation test-chaos test-browser test-packages test-clients check-all bench check docs structure

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' Makefile

demo: $(READY) ## simulated exchange, feeder, server and two readers for half a minute, checked against the truth
	@$(RUN) -m feeders demo

feeder: $(READY) ## feed live books to Redis: EXCHANGE=binance SYMBOLS=BTC,ETH
	@test -n "$$BOOKBUS_REDIS_URL" || $(RUN) -m feeders redis --shared
	@$(RUN) -m bookbus feed --exchange $(EXCHANGE) --symbols $(SYMBOLS)

runner: $(READY) ## trade on paper what the feeder publishes: EXCHANGE=binance SYMBOLS=BTC,ETH
	@test -n "$$BOOKBUS_REDIS_URL" || $(RUN) -m feeders redis --shared
	@$(RUN) -m bookbus paper --l2-source redis --exchange $(EXCHANGE) --symbols $(SYMBOLS)

smoke: $(READY) ## five minutes of paper trading through the real path, with a verdict; LIVE=1 at the exchange itself
	@$(RUN) -m feeders smoke --exchange $(EXCHANGE) $(if $(LIVE),--live)

soak: $(READY) ## both exchanges simulated, random faults, ten readers: MINUTES=60 SEED=1, with a verdict
	@$(RUN) -m tests.chaos.soak --minutes $(MINUTES) --seed $(SEED)

redis: $(READY) ## start the shared server in the background, unless one answers already
	@$(RUN) -m feeders redis --shared

redis-stop: $(READY) ## stop the shared server
	@$(RUN) -m feeders redis --stop

acl: $(READY) ## users and fresh passwords for a server that others reach, in secrets/
	@$(RUN) -m feeders acl

certificates: ## an authority and a server certificate in secrets/tls/: NAMES=DNS:redis,DNS:localhost,IP:127.0.0.1
	@deploy/make_certificates.sh secrets/tls $(NAMES)

test: check ## the checks, then unit, contract, integration and short chaos tests
	@$(RUN) -m pytest -n 6 --dist worksteal --ignore=tests/packages --ignore=tests/clients --ignore=tests/simulation --ignore=tests/browser --ignore=tests/slow $(PYTEST)

test-slow: $(READY) ## integration tests that wait for seconds: stalls, clocks, networks, signals, supervision
	@$(RUN) -m pytest -n 6 --dist worksteal $(PYTEST) tests/slow

test-simulation: $(READY) ## seeded runs of feeders, servers and readers in virtual time, under faults
	@$(RUN) -m pytest -n 2 --dist worksteal $(PYTEST) tests/simulation

test-chaos: $(READY) ## every fault of every scenario on real processes
	@BOOKBUS_CHAOS_SECONDS=0 $(RUN) -m pytest -n 3 --dist worksteal $(PYTEST) tests/chaos/test_scenarios.py

test-browser: $(READY) ## the live page in Chromium
	@$(RUN) -m pytest $(PYTEST) tests/browser

test-packages: $(READY) ## wheel, sdist and image contents, tried in empty environments
	@$(RUN) -m pytest $(PYTEST) tests/packages

test-clients: $(READY) $(CLIENTS)/.ready ## ccxt, python-binance, pybit and others against the simulated exchanges, books compared
	@$(RUN) -m pytest $(PYTEST) tests/clients

check-all: test test-slow test-simulation test-chaos test-browser test-packages test-clients ## everything that proves it, as continuous integration runs it

bench: $(READY) ## measure the hot paths, each beside the plain way in the same run
	@for file in tests/bench/bench_*.py; do \
		echo "$$file"; $(RUN) -m tests.bench.$$(basename $$file .py) || exit 1; done

check: $(READY) ## lint with security rules, format, types, compose files, known weaknesses of dependencies
	@$(RUN) -m ruff check
	@$(RUN) -m ruff format --check
	@$(RUN) -m mypy
	@$(RUN) -m check_jsonschema --builtin-schema vendor.compose-spec docker-compose.yml docker-compose.tls.yml
	@$(RUN) -m tests.support.dependency_audit

structure: $(READY) ## figures of the product's structure: modules, lines, imports, repetitions
	@$(RUN) -m tests.support.structure

docs: $(READY) ## write docs/reference/commands.md from the command lines
	@$(RUN) -m tests.support.reference

# An unfinished environment has no stamp, so the next make goes on where this one stopped.
$(READY): pyproject.toml constraints.txt
	@python='$(PYTHON)'; "$${python:-false}" -c '$(SUPPORTED)' 2>/dev/null || \
		{ echo "bookbus needs Python 3.11 to 3.14; name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "preparing $(VENV), which takes a minute and happens once"
	@$(RUN) -m pip --version >/dev/null 2>&1 || '$(PYTHON)' -m venv --clear $(VENV)
	@$(RUN) -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)

$(CLIENTS)/.ready: tests/clients/requirements.txt tests/clients/constraints.txt
	@echo "preparing $(CLIENTS) with $(CLIENTS_PYTHON), which takes a minute or two and happens once"
	@'$(CLIENTS_PYTHON)' -m venv --clear $(CLIENTS)
	@$(CLIENTS)/bin/python -m pip install -qq --disable-pip-version-check --only-binary :all: \
		-c tests/clients/constraints.txt -r tests/clients/requirements.txt
	@$(CLIENTS)/bin/python -m pip install -qq --disable-pip-version-check --only-binary :all: --no-deps \
		-c tests/clients/constraints.txt --target $(CLIENTS)/binance-connector binance-connector
	@touch $@
