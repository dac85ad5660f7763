# Every target makes or updates its own .venv first. `make` alone lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(firstword $(shell command -v python3.11 python3 python 2>/dev/null))
BIN := .venv/bin
RUN := $(BIN)/python -m
BOOK := _build/html/index.html
# Two threads inside one small network fight over the cores; parallelism is over processes.
export OMP_NUM_THREADS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# In plain ASCII, setuptools cannot write down the path of every folder.
LC_ALL := $(LC_ALL:C=C.UTF-8)
# What a user has set for other projects would bring foreign packages in, or take ours elsewhere.
export PIP_USER := 0
unexport PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX
# The start of a recipe that writes or reads the built book: two of them at once take turns.
TURN = mkdir -p _build; ! command -v flock >/dev/null || { exec 9>_build/lock; flock -n 9 || \
    { echo "Waiting for another make in this folder ..."; flock 9; }; };

.PHONY: help env book zip pdf lab test check lighthouse bench record clean

help:  ## list the targets
	@echo "Batch Normalization, Measured"
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

env:  ## make or update the environment in .venv
	@bash tools/environment.sh "$(PYTHON)"

book: env  ## build the book into _build/html and print its address
	@echo "Building the book ..."
	@$(TURN) rm -rf _build/new; \
	$(BIN)/jupyter-book build . --path-output _build/new -W -n --keep-going --quiet >_build/book.log 2>&1 \
	    || { cat _build/book.log; echo "make: the book was not built, see the warnings above" >&2; exit 1; }; \
	rm -rf _build/html; mv _build/new/_build/html _build/html; rm -rf _build/new
	@$(BIN)/python -c 'import pathlib; print("The book:", pathlib.Path("$(BOOK)").resolve().as_uri())'

zip: book  ## the built book as one file: unpack it anywhere and open index.html
	@$(TURN) $(BIN)/python -c 'import pathlib, shutil; print("The book:", shutil.make_archive("_build/batch-normalization-measured", "zip", "_build/html"))'

pdf: book  ## the whole book as one PDF, printed by Chromium
	@$(TURN) $(BIN)/python tools/print_book.py

lab: env  ## open the chapters in JupyterLab
	@$(RUN) jupyterlab --notebook-dir=chapters

check: env  ## fast checks: ruff, spelling, notebooks, type hints
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(BIN)/codespell
	@$(BIN)/python tools/lint_notebooks.py chapters/*.ipynb
	@$(RUN) mypy
	@echo "All fast checks passed."

test: check book  ## everything CI runs: fast checks, unit tests, notebooks re-executed, the built book in a browser
	@$(TURN) echo "Unit tests and examples in docstrings ..."; \
	rm -f _build/coverage*; \
	$(RUN) coverage run -m pytest -q -n 2 -m "not browser and not lab" tests; \
	$(RUN) coverage run -m pytest -q -n 2 --doctest-modules lib; \
	$(RUN) coverage combine -q; \
	$(RUN) coverage report --skip-covered; \
	echo "Every notebook, re-executed and compared ..."; \
	$(RUN) pytest -q -n 2 --dist loadfile --nbval-lax --nbval-current-env --nbval-cell-timeout=600 \
	    --nbval-sanitize-with tests/nbval.cfg chapters; \
	echo "The built book, in a browser with the network cut ..."; \
	$(RUN) pytest -q -m browser tests

lighthouse: book  ## rate every page with Lighthouse (needs node and Chromium): make lighthouse PAGES="chapters/api"
	@$(TURN) $(BIN)/python tools/lighthouse.py $(PAGES)

bench: env  ## races against the floor and the peers
	@missed=0; for race in benchmarks/*.py; do $(BIN)/python "$$race" || missed=1; done; exit $$missed

record: env  ## remake a recording: make record NAME=deep-linear
	@$(RUN) course.recordings $(if $(NAME),"$(NAME)",--list)

clean:  ## remove the built book and the environment
	rm -rf _build .venv
