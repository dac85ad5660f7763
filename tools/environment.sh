#!/usr/bin/env bash
# Make or update .venv; do nothing when it already is what requirements.txt, constraints.txt and pyproject.toml say.
set -euo pipefail
unset CDPATH # else `cd` may go to a folder tools/ elsewhere, and .venv with it
cd "$(dirname "$0")/.."
python=${1:-}

if [ -z "$python" ] || ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    found=$("${python:-python3}" --version 2>/dev/null || echo none)
    echo "make: Python 3.11 or newer is needed, found: $found. Name one: make PYTHON=/path/to/python3.11 book" >&2
    exit 1
fi

if [ ! -w . ]; then
    echo "make: this folder cannot be written; read the book in it, or copy the folder and run make there" >&2
    exit 1
fi

case $(pwd -P) in *[\$\{\}]*)
    echo "make: setuptools cannot work in a folder with one of \$ { } in its path; rename it: $(pwd -P)" >&2
    exit 1
    ;;
esac

if command -v flock >/dev/null; then # two runs of make at once take turns
    exec 9>.venv.lock
    flock -n 9 || { echo "Waiting for another make in this folder ..."; flock 9; }
fi

home="$(pwd -P) $("$python" --version)" # a moved folder or another Python needs a new environment
wanted=$(cat requirements.txt constraints.txt pyproject.toml lib/pyproject.toml | cksum)
if [ "$(cat .venv/home 2>/dev/null)" = "$home" ] && .venv/bin/python -c '' 2>/dev/null; then
    [ "$(cat .venv/ready 2>/dev/null)" = "$wanted" ] && exit 0
    echo "Updating the environment in .venv ..."
else
    echo "Making the environment in .venv (a minute or two, about 2 GB) ..."
    "$python" -m venv --clear .venv
fi
if ! .venv/bin/python -m pip install --quiet --constraint constraints.txt --requirement requirements.txt ||
    ! .venv/bin/python -m pip install --quiet --no-deps --editable . --editable lib; then
    echo "make: pip could not install the environment (it needs a network and 2 GB of disk); then run make again" >&2
    exit 1
fi
echo "$home" >.venv/home
echo "$wanted" >.venv/ready
