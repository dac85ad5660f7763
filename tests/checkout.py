"""A copy of the project in which make runs without a network.

Python there is a stand-in: its `-m venv` makes an environment in no time out of the packages of the one that
runs the tests, and its pip only writes down that it was called.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
HERE = Path(sys.executable).parent
PYTHON = """#!/bin/sh
unset COVERAGE_PROCESS_CONFIG # it is not the copy whose coverage is measured
case "$*" in
"-m venv"*)
    echo "venv" >>calls
    rm -rf .venv
    mkdir -p .venv/bin
    cp "$0" .venv/bin/python
    for tool in jupyter-book codespell; do
        printf '#!/bin/sh\\nexec .venv/bin/python "{here}/%s" "$@"\\n' $tool >.venv/bin/$tool
        chmod +x .venv/bin/$tool
    done ;;
"-m pip"*)
    echo "pip" >>calls
    sleep "${{PIP_TAKES:-0}}" ;;
*)
    PYTHONPATH="{root}/lib" exec "{here}/python" "$@" ;;
esac
"""


def outside_make() -> dict[str, str]:
    """The environment without what an outer `make test` says to an inner make."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}


def short(page: str) -> str:
    title = next(line for line in page.splitlines() if line.startswith("# "))
    return f"{title}\n\nWhat stands on this page is left out, since only its building is tested.\n"


class Checkout:
    """A copy of the project, and what its Makefile does."""

    def __init__(self, folder: Path):
        self.folder = folder
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, target)
        self.python = folder.parent / "python-for-tests"
        self.python.write_text(PYTHON.format(here=HERE, root=folder))
        self.python.chmod(0o755)

    def keep_titles_only(self) -> None:
        """Leave one sentence below the title of every page: such a book is built in a quarter of the time."""
        for path in (self.folder / "chapters").iterdir():
            if path.suffix == ".ipynb":
                notebook = json.loads(path.read_text(encoding="utf-8"))
                title = notebook["cells"][0]
                title["source"] = short("".join(title["source"]))
                path.write_text(json.dumps(notebook | {"cells": [title]}), encoding="utf-8")
            elif path.suffix == ".md":
                path.write_text(short(path.read_text(encoding="utf-8")), encoding="utf-8")

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen:
        if not any(argument.startswith("PYTHON=") for argument in arguments):
            arguments = (f"PYTHON={self.python}", *arguments)
        return subprocess.Popen(
            ["make", *arguments],
            cwd=self.folder,
            env=outside_make() | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # A shell's background job ignores an interruption, and so would everything that it starts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def make(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=600)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    @property
    def calls(self) -> list[str]:
        """What was asked of Python so far: "venv" makes an environment, "pip" fills it."""
        log = self.folder / "calls"
        return log.read_text().split() if log.exists() else []
