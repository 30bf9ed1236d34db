STACK ?= dev
BASE ?= main
HEAD ?=
ARGS ?=
# Names of branches that somebody else may have chosen: the shell sees them as words.
export BASE HEAD

TOOLCHAIN := python3 -m toolchain
PYTHON := .venv/bin/python

.DEFAULT_GOAL := help

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  STACK=guide make up   another stack (Pulumi.guide.yaml); the default is dev"
	@echo "  ARGS='--refresh'      more arguments, for pulumi or pytest"

up: ## Converge the stack: install what is missing, then pulumi up
	@$(TOOLCHAIN) up $(STACK) -- $(ARGS)

preview: ## Show what up would do
	@$(TOOLCHAIN) preview $(STACK) -- $(ARGS)

output: ## Print the stack's outputs, or one: ARGS=talosctlFlags
	@$(TOOLCHAIN) output $(STACK) -- $(ARGS)

down: ## Destroy the stack; what is cached is kept unless the stack says otherwise
	@$(TOOLCHAIN) down $(STACK) -- $(ARGS)

test: ## Run all tests, on the real engine
	@$(TOOLCHAIN) test -- $(ARGS)

check: ## Lint, check types and formatting
	@$(TOOLCHAIN) packages
	@$(PYTHON) -m ruff check
	@$(PYTHON) -m ruff format --check
	@$(PYTHON) -m mypy

demo: ## Show what the caches save: four nodes boot cold and warm, without network; results in build/
	@$(TOOLCHAIN) run -- python -m benchmarks.demo $(ARGS)

pr-preview: ## Show what this checkout, or the commit HEAD, would do to stacks that run BASE
	@$(TOOLCHAIN) run --all-images -- python -m talos_registry_cache.review --base "$$BASE" $${HEAD:+--head "$$HEAD"} $(ARGS)

bench: ## Measure `up`, sixteen nodes, and a team's caches; results in build/
	@$(TOOLCHAIN) run -- python -m benchmarks.up
	@$(TOOLCHAIN) run -- python -m benchmarks.demo --nodes 16 --small --into build/nodes
	@$(TOOLCHAIN) run --test-tools -- python -m benchmarks.team

docs: ## Renew docs/settings.md and the schema of stack files from the models
	@$(TOOLCHAIN) packages
	@$(PYTHON) -m components.settings.reference

lock: ## Renew requirements.txt and requirements-dev.txt from pyproject.toml
	@$(TOOLCHAIN) packages
	@$(PYTHON) -m uv $(LOCK) pyproject.toml --group build --output-file requirements.txt
	@$(PYTHON) -m uv $(LOCK) pyproject.toml --group build --group dev --constraint requirements.txt --output-file requirements-dev.txt

# Without the index: a lock that names a package registry's host works on no other network.
LOCK := pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command 'make lock'

release-check: ## Say what stands against a release of this checkout; renews docs and locks
	@$(TOOLCHAIN) release-check

clean: ## Remove what was installed and built; the state of the stacks stays
	@$(TOOLCHAIN) clean

.PHONY: help up preview output down test check pr-preview demo bench docs lock release-check clean
