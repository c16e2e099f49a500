# make sweep SWEEP=rte_lr            train what is missing, then draw (plan, report, status, verify: likewise)
# make search SWEEP=search_rte       look for a good and stable recipe
# make rerun SWEEP=rte_lr SEED=7 LR=6e-4 BC=off EPOCHS=3      (or TRIAL=<id>)
# make test | test-fast | check | docs | faults | bench | bench-scale | coverage | examples | newest | lock | gpu-proof OUT=dir
# PROFILE=paper chooses a profile, ARGS='--set key=value …' is handed on; .venv is set up the first time.
PYTHON ?= python3
# Compiled modules are kept, whatever the environment says (images of containers often do): set-up compiles next to none,
# and each of the tests' many processes would compile torch and all else again, in ten seconds or more.
unexport PYTHONDONTWRITEBYTECODE
BIN := .venv/bin
# Which versions .venv has: those that the tests ran with, with torch's build for CPUs or for CUDA.
LOCK ?= $(if $(shell command -v nvidia-smi),cuda,cpu)
READY := .venv/.ready
named = $(if $(SWEEP),,$(error name a sweep, as: make $@ SWEEP=rte_lr))
options = $(if $(PROFILE),--profile $(PROFILE)) $(ARGS)
where = $(if $(TRIAL),--trial $(TRIAL)) $(if $(SEED),--seed $(SEED)) $(if $(LR),--where lr=$(LR)) \
        $(if $(BC),--where bias_correction=$(BC)) $(if $(EPOCHS),--where epochs=$(EPOCHS))

.PHONY: sweep search plan report status verify rerun test test-fast durations check faults bench bench-scale coverage examples gpu-proof pretrain docs newest lock clean

sweep search plan report status verify: $(READY)
	$(named)@$(BIN)/harness $@ $(SWEEP) $(options)

rerun: $(READY)
	$(named)@$(BIN)/harness rerun $(SWEEP) $(where) $(options)

# File by file, the longest files first, in a process more than there are cores, since those with Ray often wait for it;
# JOBS=0 for all in one process.
JOBS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
side_by_side := -n $(JOBS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(READY)
	$(BIN)/pytest $(side_by_side) $(ARGS)

# Without the tests that take half a second or more: for between two edits.
test-fast: $(READY)
	$(BIN)/pytest $(side_by_side) -m "not slow" $(ARGS)

# The types are checked beside the tests, which now and then wait for Ray, and told at the end. The first time one process
# compiles what the tests import, which all of them would do at once.
check: $(READY)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	@mkdir -p build; $(BIN)/mypy >build/types.txt 2>&1 & types=$$!; \
	test -e .venv/.compiled || $(BIN)/pytest --collect-only -qq >build/collected.txt 2>&1 && touch .venv/.compiled; \
	$(BIN)/pytest $(side_by_side); tests=$$?; \
	wait $$types; typed=$$?; cat build/types.txt; exit $$((tests || typed))

# Measures anew which tests are slow, on a machine that does nothing else.
durations: $(READY)
	DURATIONS=write $(BIN)/pytest

# Kills, stops, interrupts and starves sweeps for some minutes; each must end with the undisturbed records.
faults: $(READY)
	$(BIN)/pytest tests/faults

# The speed tables, almost an hour of all cores and of the GPU where there is one; ARGS='--only start memory' for some.
bench: $(READY)
	@$(BIN)/python -m benchmarks.speed $(ARGS)

# What the harness itself costs with 1,000 and 10,000 made-up trials; ARGS=--large for 100,000 (minutes, 3 GB of disk).
bench-scale: $(READY)
	$(BIN)/python -m benchmarks.scale $(ARGS)

# How often each interval of the report holds the truth, simulated in minutes; ARGS=cells for one family of rows.
coverage: $(READY)
	$(BIN)/python -m benchmarks.coverage $(ARGS)

# Trains the shipped sweeps whose reports are committed, and writes these anew; ARGS=rte_lr@embedded for one of them.
examples: $(READY)
	$(BIN)/python -m benchmarks.examples $(ARGS)

# Every figure of a GPU in under eight minutes; ARGS='--minilm DIR --mpnet DIR --data DIR' for the real studies. It runs
# without .venv too: python3 -m benchmarks.gpu_proof --out DIR
gpu-proof: $(READY)
	$(if $(OUT),,$(error name a folder, as: make $@ OUT=dir))@$(BIN)/python -m benchmarks.gpu_proof --out $(OUT) $(ARGS)

# Rebuilds the shipped weights beside them, to compare: a quarter of an hour on one core.
pretrain: $(READY)
	$(BIN)/harness pretrain build/embedded-model

# The documentation, as pages to open in build/site: a broken link fails, and nothing is fetched but, once, mkdocs.
docs: $(READY) .venv-docs/.ready
	$(BIN)/python docs/build.py build/docs
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet --strict --config-file docs/mkdocs.yml
	@echo "Documentation: build/site/index.html"

.venv-docs/.ready: locks/docs.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install $(PIP_SAYS) --requirement locks/docs.txt
	@touch $@

# Into .venv-newest goes the newest of what pyproject's ranges allow, and the tests are run with that.
newest: $(READY)
	$(BIN)/python locks/lock.py build/newest --upgrade
	$(call set_up,.venv-newest,build/newest/$(LOCK).txt)
	.venv-newest/bin/pytest $(side_by_side)

# ARGS=--upgrade takes the newest, ARGS='--upgrade-package NAME' that of one; else only what the ranges changed changes.
lock: $(READY)
	$(BIN)/python locks/lock.py locks $(ARGS)

# torch by pip, which knows this machine's own builds; beside it the rest by uv, in a fifth of pip's time. What neither
# could fetch, pip does. Of torch's two thousand modules those that are imported are compiled when they are.
define set_up
	$(PYTHON) -m venv $(1)
	$(1)/bin/pip install $(PIP_SAYS) --constraint $(2) uv
	{ $(1)/bin/pip install $(PIP_SAYS) --no-deps --no-compile --constraint $(2) torch & torch=$$!; \
	grep -v '^torch==' $(2) | $(1)/bin/uv pip install --quiet --python $(1)/bin/python --no-deps --requirement -; \
	rest=$$?; wait $$torch && test $$rest = 0; } || $(1)/bin/pip install $(PIP_SAYS) --requirement $(2)
	$(1)/bin/pip install $(PIP_SAYS) --no-deps --no-build-isolation --editable .
endef
PIP_SAYS := --quiet --disable-pip-version-check

$(READY): pyproject.toml locks/cpu.txt locks/cuda.txt
	$(call set_up,.venv,locks/$(LOCK).txt)
	@touch $@

clean:
	rm -rf .venv .venv-newest .venv-docs build .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
