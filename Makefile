# The two that a newcomer needs: `make demo` and `make test`. Both do all set-up by themselves.
# `make PYTHON=python3.12 test` chooses the Python; `make ARGS="-k name tests/core" pytest` runs some tests.

PYTHON ?=
ARGS ?=
export PYTHON
# Tests start thousands of Pythons; one that may not keep what it compiled takes twice the time.
unexport PYTHONDONTWRITEBYTECODE
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo test pytest lint docs bench build clean

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

setup: ## Make .venv: Python, uv, the workspace, the native programs
	@scripts/setup.sh

demo: setup ## Run the main job: two services from a Compose file on the local backend
	@$(BIN)/python examples/demo/demo.py

test: setup ## Check everything: format, lint, types, docs, tests
	@$(BIN)/python scripts/check.py $(ARGS)

pytest: setup ## Run tests only
	@$(BIN)/python -m pytest $(ARGS)

lint: setup ## Check format, lint and types
	@$(BIN)/python scripts/check.py --only format,lint,types

docs: setup ## Build the docs into docs/_build/html
	@$(BIN)/python scripts/check.py --only docs

bench: setup ## Measure everything beside its rivals, about five minutes; writes docs/explanation/performance.md
	@$(BIN)/python -m benchmarks --docs $(ARGS)

build: setup ## Build wheel and sdist of every distribution into dist/
	@$(BIN)/uv build --all-packages --out-dir dist

clean: ## Remove .venv and everything that was built
	rm -rf .venv build dist docs/_build sandboxcore/guest/bin sandboxcore/local/bin .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
