# The entry point for people and for CI. Everything runs in .venv, which is made from the lock.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
SERVING := .venv/.serving
SAM_INSTALLED := .venv-sam/.installed
DOCS_INSTALLED := .venv-docs/.installed
SAM := SAM_CLI_TELEMETRY=0 .venv-sam/bin/sam

# Tests run side by side; the slow ones wait more than they work, so twice as many of them do. Of these each worker takes
# the next one when it is free, the longest first (tests/conftest.py).
WORKERS ?= 2
SIDE_BY_SIDE = $(BIN)/pytest --dist worksteal --durations=10 -n
SLOW_SIDE_BY_SIDE = $(BIN)/pytest --dist loadgroup --no-loadscope-reorder -o faulthandler_timeout=1200 --durations=10 -n
NODE_PACKAGES := tests/conformance/node_modules/.installed tests/clients/node_modules/.installed bench/node_modules/.installed examples/token-stream/node_modules/.installed

# uv trusts what the machine trusts, as pip does.
export UV_SYSTEM_CERTS := 1

.DEFAULT_GOAL := help
.PHONY: help install serve serve-aws test soak test-all contract clients console screenshots test-e2e conformance conformance-lambda examples bench bench-metrics cost overload cost-page changes cold smoke load build docs docs-serve fmt lint types check lock pythons release clean

# An order-only prerequisite: the folder's time changes with each file in it.
.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "fluvial needs Python 3.11 or newer; say which with: make PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -m venv .venv || \
		{ echo "Python has no ensurepip; on Debian: apt-get install python3-venv" >&2; exit 2; }

# What serving needs, a fifth of the whole lock. The package itself is on the path by a .pth file, because installing it
# would first need the tool that builds it.
$(SERVING): requirements/run.txt | .venv/bin/python
	@echo "installing what the server needs into .venv, from requirements/run.txt" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.txt
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' | \
		{ read -r folder; echo "$(CURDIR)/shared" >"$$folder/fluvial-clone.pth"; }
	@test -e $(BIN)/fluvial || { printf '#!%s\nfrom fluvial.cli.main import main\n\nmain()\n' \
		"$(CURDIR)/$(BIN)/python" >$(BIN)/fluvial && chmod +x $(BIN)/fluvial; }
	@touch $@

$(INSTALLED): requirements/dev.txt pyproject.toml | .venv/bin/python
	@echo "installing what tests and checks need into .venv, from requirements/dev.txt" >&2
	@# pip installs uv, and uv the rest: that takes a tenth of the time.
	@awk '/^[a-z]/ {is_uv = /^uv==/} is_uv' requirements/dev.txt >.venv/uv.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.txt
	$(BIN)/uv pip install --quiet --no-config --compile-bytecode --python $(BIN)/python --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# By uv: some of its packages are asked for both with and without extras, and older pips find only one of the two pinned.
$(SAM_INSTALLED): requirements/sam.txt | $(INSTALLED)
	$(PYTHON) -m venv .venv-sam
	$(BIN)/uv pip install --quiet --no-config --python .venv-sam/bin/python --require-hashes -r requirements/sam.txt
	@touch $@

$(DOCS_INSTALLED): requirements/docs.txt | $(INSTALLED)
	$(PYTHON) -m venv .venv-docs
	$(BIN)/uv pip install --quiet --no-config --compile-bytecode --python .venv-docs/bin/python --require-hashes -r requirements/docs.txt
	@touch $@

# Not `npm ci`: npm 11 refuses a lock that lacks optional packages of other platforms, as some registries do.
%/node_modules/.installed: %/package-lock.json
	cd $* && npm install --no-save --no-audit --no-fund --loglevel=error
	@touch $@

## To use it

serve: $(SERVING) ## run the server on port 4437 with data in ./fluvial-data
	exec $(BIN)/fluvial serve

serve-aws: install ## run the server on DynamoDB Local (moto without Java) and moto's S3, all here; FUNCTIONS=yes: the whole stack
	exec $(BIN)/python -m tests.aws_local $(if $(FUNCTIONS),--functions)

# A line that begins with two number signs is a heading, and a target with two of them at its end is listed below it.
help: ## list every target
	@awk -F ':.*## ' '/^## / {printf "\n%s\n", substr($$0, 4)} /^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

## To change it

install: $(INSTALLED) ## make .venv from the lock, with all that tests and checks need

fmt: install ## format the code
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

lint: install ## check format and lint rules
	$(BIN)/ruff format --check
	$(BIN)/ruff check

types: install ## check types
	$(BIN)/mypy

test: install ## run the fast tests, and tell the slowest ten
	$(SIDE_BY_SIDE) $(WORKERS) -m "not slow and not medium"

# With GRADUAL it is a variant of the template that is made for one deployment (docs/operations/deploying.md).
TEMPLATE := $(if $(GRADUAL),template.gradual.yaml,template.yaml)
build: install $(SAM_INSTALLED) ## check the template and build what `sam deploy` deploys; GRADUAL=yes: with aliases
	$(if $(GRADUAL),$(BIN)/python -m tools.gradual $(TEMPLATE))
	$(SAM) validate --lint --template $(TEMPLATE)
	$(SAM) validate --lint --template examples/lambda-publisher/template.yaml
	$(SAM) build --parallel --template $(TEMPLATE)

# The banner is an advertisement for the generator's successor.
MKDOCS := PYTHONPATH=. NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs
docs: $(DOCS_INSTALLED) ## build the documentation's site into site/, and check every link in it
	$(MKDOCS) build --quiet --strict
	.venv-docs/bin/python -m tools.site.check site

docs-serve: $(DOCS_INSTALLED) ## show the documentation at http://127.0.0.1:8000 while you write
	$(MKDOCS) serve

# Each target's output is shown whole, when it has ended. Make 3, which macOS has, shows it as it comes.
check: install $(SAM_INSTALLED) $(DOCS_INSTALLED) ## everything that must hold: what CI runs
	@$(MAKE) --no-print-directory -j2 $(if $(filter output-sync,$(.FEATURES)),--output-sync=target) lint types docs build
	@$(MAKE) --no-print-directory test-all

## Tests, a part at a time

test-all: install $(NODE_PACKAGES) ## run every test but the long ones; the fast ones with coverage
	$(SIDE_BY_SIDE) $(WORKERS) -m "not slow" --cov --cov-report=term:skip-covered --cov-fail-under=95
	$(SLOW_SIDE_BY_SIDE) $$((2 * $(WORKERS))) -m "slow and not long"

contract: install ## run the one suite that every store passes
	$(BIN)/pytest tests/contract

conformance: install tests/conformance/node_modules/.installed ## run the public server suite over every store
	$(BIN)/pytest tests/conformance -k "not lambda"

conformance-lambda: install tests/conformance/node_modules/.installed ## run it through API Gateway: the edge and live functions
	$(BIN)/pytest tests/conformance -k lambda

clients: install tests/clients/node_modules/.installed ## run the clients that people have against the server, also in Chromium
	$(BIN)/pytest tests/clients

console: install tests/clients/node_modules/.installed ## run the console's tests, in Chromium
	$(BIN)/pytest tests/console

screenshots: install tests/clients/node_modules/.installed ## take the pictures of the console in the documents anew
	$(BIN)/python -m tests.console

examples: install $(NODE_PACKAGES) ## run the examples as a test
	$(BIN)/pytest tests/examples

test-e2e: install ## play the whole scenario at its full size, from every publisher's door to every reader
	SCENARIO=full $(BIN)/pytest -o faulthandler_timeout=1200 tests/e2e

soak: install ## run at length what finds the more the longer it runs: state machines, random histories, fuzzing
	$(BIN)/pytest -o faulthandler_timeout=0 --hypothesis-profile=soak -m "luck or hypothesis" --ignore=tests/conformance --ignore=tests/e2e

## A server that is deployed: docs/operations/smoke.md

# TOKEN comes from the environment, so that no list of processes shows it.
SMOKE_OPTIONS = $(if $(URL),--url "$(URL)") $(if $(STACK),--stack "$(STACK)") $(if $(REGION),--region "$(REGION)") \
	$(if $(SOCKET_URL),--socket-url "$(SOCKET_URL)") $(if $(LONG_POLL),--long-poll "$(LONG_POLL)") \
	$(if $(BURST),--burst "$(BURST)") $(if $(SUITE),--suite)
smoke: install $(if $(SUITE),tests/conformance/node_modules/.installed) ## check a server from outside: URL or STACK, TOKEN, SUITE=yes
	@$(BIN)/python -m tools.smoke $(SMOKE_OPTIONS)

# FLUVIAL_TOKEN is where the command looks for it. Without RATE each writer waits for its answer, and so is paced by the
# server. With RATE there is a second load, of so many appends a second, whatever the answers take. A stream needs a
# writer, which is said before the first load begins and not after it.
STREAMS ?= 1
WRITERS ?= $(STREAMS)
RATE_WRITERS ?= 64
load: export FLUVIAL_TOKEN := $(or $(TOKEN),$(FLUVIAL_TOKEN))
LOAD = $(BIN)/fluvial bench "$(URL)" --streams $(STREAMS) --readers $(or $(READERS),1) --duration $(or $(SECONDS),30)s
load: install ## load a server: URL, TOKEN (before make), STREAMS=1, WRITERS=STREAMS, READERS=1, SECONDS=30; RATE, RATE_WRITERS=64: then at a rate
	@test $(STREAMS) -le $(WRITERS) || { echo "STREAMS=$(STREAMS) needs as many WRITERS, not $(WRITERS)" >&2; exit 2; }
	@test -z "$(RATE)" || test $(STREAMS) -le $(RATE_WRITERS) || \
		{ echo "STREAMS=$(STREAMS) with RATE needs as many RATE_WRITERS, not $(RATE_WRITERS)" >&2; exit 2; }
	@$(LOAD) --connections $(WRITERS)
	$(if $(RATE),@$(LOAD) --rate $(RATE) --connections $(RATE_WRITERS))

## Measurements

bench: install bench/node_modules/.installed ## measure against the reference server; prints ratios
	$(BIN)/python -m bench

bench-metrics: install ## measure what metrics, access log and traces cost an append; prints ratios
	$(BIN)/python -m bench.observability

cost: install ## measure what appends and reads take of DynamoDB; prints units and dollars
	$(BIN)/python -m bench.cost

overload: install ## ask one stream for twice what its partition takes, on AWS's engine behind a limiter; prints the goodput
	$(BIN)/python -m bench.overload

cost-page: install ## compute docs/operations/cost.md anew, from what `make cost` measured
	$(BIN)/python -m bench.cost_page

changes: install ## measure how many records of the change feed a second the changes function processes
	$(BIN)/python -m bench.changes

cold: build ## time a new function's imports and first call
	$(BIN)/python -m bench.cold

## Maintenance

# With extras, because older pips take a package with extras from the index unless the lock pins it with them.
LOCK := uv pip compile --quiet --universal --generate-hashes --no-header --no-strip-extras
# What only the command line needs (httpx, rich) or only the webhooks of one machine (cryptography), and what these need.
NOT_IN_LAYER := httpx httpcore certifi rich markdown-it-py mdurl pygments cryptography cffi pycparser
lock: ## compile the locks anew from pyproject.toml (needs uv)
	$(LOCK) --python-version 3.11 pyproject.toml -o requirements/run.txt
	$(LOCK) --python-version 3.11 pyproject.toml --all-extras --group dev --group lambda -o requirements/dev.txt
	$(LOCK) --python-version 3.13 --constraint requirements/dev.txt $(NOT_IN_LAYER:%=--no-emit-package %) pyproject.toml --group lambda -o shared/requirements.txt
	$(LOCK) --python-version 3.11 --group sam -o requirements/sam.txt
	$(LOCK) --python-version 3.11 --constraint requirements/dev.txt pyproject.toml --group docs -o requirements/docs.txt

pythons: install ## run the fast tests on every Python from 3.11 to 3.14 that is on this machine
	$(BIN)/python -m tools.release.pythons

# The page of the repository, for the links in what a package index shows: make release REPOSITORY=https://…
REPOSITORY ?=
release: install ## check, build and test what a release holds, into dist/, and say what to push
	$(BIN)/python -m tools.release --repository "$(REPOSITORY)"

clean: ## remove what the targets made, but no data
	rm -rf template.gradual.yaml .venv .venv-docs .venv-sam .venv-pythons dist site .aws-sam tests/aws_local/lib tests/clients/lib .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage tests/conformance/node_modules tests/clients/node_modules bench/node_modules examples/token-stream/node_modules
