# Every target makes or updates its own .venv first. `make` alone lists the targets.
# Every line of a recipe is one command: the first that fails ends it under any make from 3.81 on and any shell.
.DEFAULT_GOAL := help

PYTHON ?= $(shell for python in python3.11 python3 python; do command -v $$python && break; done)
BIN := .venv/bin
RUN := $(BIN)/python -m
# Two threads inside one small network fight over the cores; parallelism is over processes.
export OMP_NUM_THREADS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# In plain ASCII, setuptools cannot write down the path of every folder.
LC_ALL := $(LC_ALL:C=C.UTF-8)
# What a user has set for other projects would bring foreign packages in, or take ours elsewhere.
export PIP_USER := 0
unexport PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX
# Before a command that writes or reads the built book: two of them at once take turns.
TURN := $(BIN)/python tools/turn.py

.PHONY: help env book zip pdf lab test check lighthouse bench record roundings clean

help:  ## list the targets
	@echo "Batch Normalization, Measured"
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

env:  ## make or update the environment in .venv
	@bash tools/environment.sh "$(PYTHON)"

book: env  ## build the book into _build/html and print its address
	@$(TURN) $(BIN)/python tools/build_book.py

zip: book  ## the built book as one file: unpack it anywhere and open index.html
	@$(TURN) $(BIN)/python -c 'import shutil; print("The book:", shutil.make_archive("_build/batch-normalization-measured", "zip", "_build/html"))'

pdf: book  ## the whole book as one PDF, printed by Chromium
	@$(TURN) $(BIN)/python tools/print_book.py

lab: env  ## open the chapters in JupyterLab
	@$(RUN) jupyterlab --notebook-dir=chapters

check: env  ## fast checks: ruff, spelling, notebooks, type hints
	@$(BIN)/python tools/parts.py checks

test: env  ## everything CI runs: fast checks, unit tests, notebooks re-executed, the built book in a browser
	@$(TURN) $(BIN)/python tools/parts.py

roundings: env  ## re-execute every notebook under other roundings and write what moved
	@$(BIN)/python tools/roundings.py

lighthouse: book  ## rate every page with Lighthouse (needs node and Chromium): make lighthouse PAGES="chapters/api"
	@$(TURN) $(BIN)/python tools/lighthouse.py $(PAGES)

bench: env  ## races against the floor and the peers
	@missed=0; for race in benchmarks/*.py; do $(BIN)/python "$$race" || missed=1; done; exit $$missed

record: env  ## remake a recording: make record NAME=deep-linear
	@$(RUN) course.recordings $(if $(NAME),"$(NAME)",--list)

clean:  ## remove the built book and the environment
	rm -rf _build .venv
