STACK ?= dev
BASE ?= main
HEAD ?=
ARGS ?=
# Branch names may come from strangers. As environment variables, the shell does not interpret them.
export BASE HEAD

TOOLCHAIN := python3 -m toolchain
PYTHON := .venv/bin/python

.DEFAULT_GOAL := help

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  STACK=guide make up   use another stack (Pulumi.guide.yaml); the default is dev"
	@echo "  ARGS='--refresh'      pass more arguments to pulumi or pytest"

up: ## Install missing tools, and create or update the stack (pulumi up)
	@$(TOOLCHAIN) up $(STACK) -- $(ARGS)

doctor: ## Report what up would install or build, and what is missing; changes nothing
	@$(TOOLCHAIN) doctor $(STACK)

preview: ## Preview the changes of up
	@$(TOOLCHAIN) preview $(STACK) -- $(ARGS)

output: ## Print the stack's outputs, or one of them: ARGS=talosctlFlags
	@$(TOOLCHAIN) output $(STACK) -- $(ARGS)

down: ## Destroy the stack; keeps cached images unless the stack file says otherwise
	@$(TOOLCHAIN) down $(STACK) -- $(ARGS)

test: ## Run the unit, contract and integration tests on a real container engine
	@$(TOOLCHAIN) test -- $(ARGS)

engine-test: ## Run the tests that depend on the engine on Docker Engine 29, which it builds if needed
	@$(TOOLCHAIN) engine-test -- $(ARGS)

cluster-test: ## Boot whole Talos clusters from the caches, and test the newest talosctl; builds Kubernetes first
	@$(TOOLCHAIN) cluster-test -- $(ARGS)

check: ## Lint, and check formatting and types
	@$(TOOLCHAIN) packages
	@$(PYTHON) -m ruff check
	@$(PYTHON) -m ruff format --check
	@$(PYTHON) -m mypy

demo: ## Show what the caches save: boot nodes cold, warm and offline; results in build/
	@$(TOOLCHAIN) run --all-images -- python -m benchmarks.demo $(ARGS)

pr-preview: ## Preview what this checkout, or the commit HEAD, changes in stacks that run BASE
	@$(TOOLCHAIN) run --all-images -- python -m talos_registry_cache.review --base "$$BASE" $${HEAD:+--head "$$HEAD"} $(ARGS)

bench: ## Measure `up`, pulls, sixteen nodes and a team's caches; results in build/
	@$(TOOLCHAIN) run -- python -m benchmarks.up
	@$(TOOLCHAIN) run -- python -m benchmarks.pulls
	@$(TOOLCHAIN) run --all-images -- python -m benchmarks.demo --nodes 16 --small --into build/nodes
	@$(TOOLCHAIN) run --test-tools -- python -m benchmarks.team

cluster-bench: ## Measure how fast a whole Talos cluster boots; results in build/
	@$(TOOLCHAIN) run --test-tools --kubernetes -- python -m benchmarks.clusters $(ARGS)

soak: ## Run a stack for 24 rounds with kills in between; results in build/
	@$(TOOLCHAIN) run --test-tools -- python -m benchmarks.soak $(ARGS)

recording: ## Record the commands of a new user; writes docs/terminal.svg
	@$(TOOLCHAIN) run -- python -m benchmarks.recording $(ARGS)

docs: ## Generate docs/settings.md and the schema of stack files
	@$(TOOLCHAIN) packages
	@$(PYTHON) -m components.settings.reference

lock: ## Update requirements.txt and requirements-dev.txt from pyproject.toml
	@$(TOOLCHAIN) packages
	@$(PYTHON) -m uv $(LOCK) pyproject.toml --group build --output-file requirements.txt
	@$(PYTHON) -m uv $(LOCK) pyproject.toml --group build --group dev --constraint requirements.txt --output-file requirements-dev.txt

# Without the index URL: a lock file with the host of a package registry works only on its network.
LOCK := pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command 'make lock'

release-check: ## Report what is missing for a release of this checkout; updates docs and locks
	@$(TOOLCHAIN) release-check

clean: ## Remove installed and built files; keeps the Pulumi state
	@$(TOOLCHAIN) clean

.PHONY: help up doctor preview output down test engine-test cluster-test check pr-preview demo bench cluster-bench soak recording docs lock release-check clean
