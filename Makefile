# make demo · make test · make bench · make check: each sets up what it needs (one .venv, pinned).
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAY   ?=
OUT    ?=
SEEDS  ?=
HOURS  ?= 0.2
KILLS    ?= 100
DATABASE ?= sqlite
SEED     ?= 1

# Debian keeps venv in a package of its own: root installs it, others are told how.
VENV_PACKAGE = if [ "$$(id -u)" = 0 ]; then apt-get update -q && apt-get install -y -q python3-venv; \
  else echo "python3 has no venv here; first: sudo apt install python3-venv" >&2; exit 1; fi

RECORD   ?=
SECONDS  ?= 60

.PHONY: help install demo test check lint types contracts bench chaos interop docs pins clean simulate soak silence burst fuzz storage

help:            ## what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

install: $(VENV)/installed  ## makes .venv with the command unisono in it

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV) && $(VENV_PACKAGE) && $(PYTHON) -m venv $(VENV); }
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install    ## the main job on loopback: simulator, 20 accounts, one plan, gaps, a reconciliation (STAY=1 stays up)
	$(BIN)/unisono demo $(if $(STAY),--stay)

test: install    ## every test
	$(BIN)/python -m pytest

check: lint types contracts  ## what CI runs beside the tests

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

contracts: install
	$(BIN)/lint-imports

bench: install   ## floors and engine in one run (OUT=file.json writes the figures)
	$(BIN)/python -m bench $(if $(OUT),--out $(OUT))

chaos: install   ## a real engine killed with -9, KILLS=n times, against the venue's truth (DATABASE=postgres SEED=1 RECORD=1)
	$(BIN)/python -m tests.chaos --kills $(KILLS) --database $(DATABASE) --seed $(SEED) $(if $(VENUE),--venue $(VENUE)) $(if $(RECORD),--record)

storage: install ## files, database servers and clocks that fail under a real engine (RECORD=1)
	$(BIN)/python -m tests.storage $(if $(RECORD),--record)

simulate: install ## the whole engine on virtual time, every fault (SEED=1 SEEDS=1 HOURS=0.2 | FILLS=n | LIMITS=1 HOURS=24 ACCOUNTS=300; VENUE=…)
	$(BIN)/python -m tests.simulation --seed $(SEED) --seeds $(or $(SEEDS),1) --hours $(HOURS) \
	  $(if $(ACCOUNTS),--accounts $(ACCOUNTS)) $(if $(FILLS),--fills $(FILLS)) $(if $(LIMITS),--limits) \
	  $(if $(VENUE),--venue $(VENUE)) $(if $(RECORD),--record)

soak: install    ## many short simulations, among which every kind of trouble must have happened (SEEDS=200)
	$(BIN)/python -m tests.simulation --seed $(SEED) --seeds $(or $(SEEDS),200) --hours 0.025 $(if $(RECORD),--record)

fuzz: install    ## every reader of bytes from outside under atheris, guided by coverage (SECONDS=60 RECORD=1)
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(if $(RECORD),--record)

interop: install ## what others wrote against what we wrote, venue by venue, each in an environment of its own
	$(BIN)/python -m tests.interop

docs: install    ## the reference pages that come from the code
	$(BIN)/python docs/generate.py

pins: install    ## constraints.txt anew from what is installed
	$(BIN)/python -m pip list --format=freeze --exclude-editable --exclude pip --exclude setuptools \
	  | sed '1i # Pins for every environment of this project: names and versions, no addresses. Renew with: make pins' \
	  > constraints.new && mv constraints.new constraints.txt

clean:           ## forgets the environments and the demo's state
	rm -rf $(VENV) .interop demo-state
