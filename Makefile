# Every verb works as the first command after cloning: it makes .venv where there is none.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
PEERS := .venv-peers
SCHEDULERS := .venv-schedulers
unexport PYTHONDONTWRITEBYTECODE  # each of the many processes of the tests would compile all anew
export POPDASK_DATA ?= $(if $(wildcard ../shared/data),$(abspath ../shared/data),)

.PHONY: install demo docs test test-notebooks test-faults test-slurm test-schedulers lint bench clean

install: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(READY)
	$(BIN)/popdask demo

# The site is docs/_build/html/index.html.
docs: $(READY)
	$(BIN)/sphinx-build -q -W --keep-going -n -b html -d docs/_build/doctrees docs docs/_build/html

# A file's tests stay in one process: what they start from is made once. Long files come first.
test: $(READY)
	$(BIN)/python -m pytest -q --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# The notebooks and the demo, each as its own process: what a newcomer runs, in full size.
test-notebooks: $(READY)
	$(BIN)/python -m pytest -q --numprocesses 2 --dist loadfile --no-loadscope-reorder tests/notebooks

# What is killed waits at a gate: neither another process nor a busy machine changes what it meets.
test-faults: $(READY)
	$(BIN)/python -m pytest -q --numprocesses 2 --dist loadfile --no-loadscope-reorder tests/faults tests/object_store

# Starts a SLURM of one node; as root it installs what is missing of it.
test-slurm: $(READY)
	$(BIN)/python -m pytest -q tests/slurm

# Prefect and Airflow want other versions of the same libraries: each has an environment of its own.
test-schedulers: $(READY) $(SCHEDULERS)/.installed
	$(BIN)/python -m pytest -q tests/schedulers

$(SCHEDULERS)/.installed:
	for name in prefect airflow; do $(PYTHON) -m venv $(SCHEDULERS)/$$name || exit 1; done
	$(SCHEDULERS)/prefect/bin/python -m pip install -q 'prefect>=3.4'
	$(SCHEDULERS)/airflow/bin/python -m pip install -q 'apache-airflow>=3.1'
	touch $@

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The peers of the tracking live apart: see benchmarks/peers.txt.
bench: $(READY) $(PEERS)/.installed
	$(BIN)/python -m benchmarks --output benchmarks/RESULTS.md

$(PEERS)/.installed: benchmarks/peers.txt constraints.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install -q --constraint constraints.txt --requirement benchmarks/peers.txt
	touch $@

clean:
	rm -rf $(VENV) $(PEERS) $(SCHEDULERS) out build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
