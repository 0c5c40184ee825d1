# Each target sets up .venv by itself from requirements.lock; nothing needs to be activated.
PYTHON ?= python3.11
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check -c requirements.lock
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: demo test check acceptance ui serve clean

demo: .venv/run            ## the whole lifecycle once, on simulated transactions
	.venv/bin/switchyard demo

test: .venv/dev            ## every test that needs no extra
	.venv/bin/python -m pytest

check: .venv/neural .venv/dev  ## lint, types and tests, as CI runs them
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/python -m pytest

acceptance: .venv/dev      ## every bar at full size; resumable, one JSON line per bar
	.venv/bin/python -m benchmarks.acceptance

ui: .venv/run              ## the Dagster UI on http://127.0.0.1:3001
	.venv/bin/switchyard ui

serve: .venv/run           ## the champion's Bento on http://127.0.0.1:3000
	.venv/bin/switchyard serve

clean:                     ## stop what runs and forget everything that was generated
	-.venv/bin/switchyard down
	rm -rf .switchyard .venv

.venv/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: '$(PYTHON)' is not on the PATH (set PYTHON=...)"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/run: .venv/bin/python pyproject.toml requirements.lock
	@echo "setting up .venv (some minutes the first time)"
	$(PIP) -e .
	.venv/bin/python -m switchyard.fraud.compiling
	@touch $@

.venv/dev: .venv/run
	$(PIP) -e '.[dev]'
	@touch $@

.venv/neural: .venv/run
	$(PIP) -e '.[neural]'
	@touch $@
