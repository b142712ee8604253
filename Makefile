PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: simulate test fuzz fuzz-engines fuzz-kernel signals chaos notebook bench bench-short bench-docs docs check lint types imports format dist slurm job-submit oldest clean

simulate: $(STAMP)
	$(BIN)/ksmcluster simulate --nodes 64

# Two processes, each with a Ray cluster of its own: many tests wait for processes to start or to end.
# A file's tests run in one of them, since they share actors.
test: $(STAMP)
	$(BIN)/pytest -n 2 --dist loadfile

notebook: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[notebook]'
	$(BIN)/pytest tests/test_notebooks.py

# About an hour; FUZZ_EXAMPLES says how many inputs of each kind.
FUZZ_EXAMPLES ?= 40000
fuzz: $(STAMP)
	FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/pytest --timeout 0 tests/fuzz

# Half an hour. Of a run that was interrupted, `make fuzz-engines FUZZ="--seed N --count N"` does the rest.
fuzz-engines: $(STAMP)
	$(BIN)/python -m tests.fuzz.engines $(FUZZ)

# The real KSM of this host; needs root. Ten minutes.
fuzz-kernel: $(STAMP)
	$(BIN)/python -m tests.fuzz.kernel $(FUZZ)

# All commands, each ended by signals at random moments.
signals: $(STAMP)
	$(BIN)/python -m tests.ksmcluster.commands.signalled

# Kills and freezes of runs: `make chaos CHAOS="--count 20 --kinds node,machine"`.
chaos: $(STAMP)
	$(BIN)/python -m tests.chaos $(CHAOS)

bench: $(STAMP)
	$(BIN)/python benchmarks/targets.py

bench-short: $(STAMP)
	$(BIN)/python benchmarks/targets.py --short

bench-docs: $(STAMP)
	$(BIN)/python benchmarks/targets.py --docs

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --clean --strict

check: lint types imports

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/shellcheck deploy/*.sh deploy/*.sbatch
	$(BIN)/hadolint deploy/Containerfile

types: $(STAMP)
	$(BIN)/mypy

imports: $(STAMP)
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The wheel and the source distribution in dist/, checked, and tried outside the repository.
dist: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*
	bash deploy/try_wheel.sh $(PYTHON) dist/*.whl

# Needs root, and Debian's slurm-wlm and munge.
slurm: $(STAMP)
	$(BIN)/pytest deploy/test_slurm.py

# An environment of its own: the dashboard that takes jobs would slow down the start of each Ray.
job-submit:
	$(PYTHON) -m venv build/jobs
	build/jobs/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[jobs]' pytest pytest-timeout
	build/jobs/bin/pytest deploy/test_job_submit.py

# The oldest versions of all packages that pyproject.toml allows.
OLDEST_TESTS ?= tests/actors $(addprefix tests/ksmcluster/,commands experiments report results snapshot)
oldest:
	$(PYTHON) -m venv build/oldest
	build/oldest/bin/pip install --quiet --disable-pip-version-check uv
	build/oldest/bin/uv pip install --quiet --python build/oldest/bin/python --resolution lowest-direct -e '.[pandas,plot]'
	build/oldest/bin/uv pip install --quiet --python build/oldest/bin/python duckdb hypothesis pytest pytest-timeout pytest-xdist
	build/oldest/bin/pytest -n 2 --dist loadfile -o filterwarnings=default $(OLDEST_TESTS)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m compileall -q actors cluster ksmcluster
	touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
