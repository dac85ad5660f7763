"""``python -m bnlab.checkup module:factory``: a check-up from the command line."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Mapping

from .examine import checkup

HELP = """\
Check the normalization layers of a network. `factory` is called without arguments and returns what
bnlab.checkup takes: a tuple (model, batches), or a dictionary with these and loss, test, optimizer,
steps, forward. The exit code is 0 where nothing above a note is found, 1 where something is, and 2
where the check-up could not be made.
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bnlab.checkup", description=HELP)
    parser.add_argument("factory", help="where the factory is, such as training.network:for_checkup")
    parser.add_argument("--budget", type=int, help="at most so many forward passes")
    given = parser.parse_args(arguments)
    module_name, _, name = given.factory.partition(":")
    if not name:
        parser.error(f"factory: expected module:factory, got {given.factory!r}")
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module_name), name)()
    except (ImportError, AttributeError) as error:
        parser.error(f"factory: {given.factory!r} cannot be imported: {error}")
    if isinstance(found, Mapping):
        result = checkup(**found, budget=given.budget, progress=sys.stderr.isatty())
    else:
        model, batches = found
        result = checkup(model, batches, budget=given.budget, progress=sys.stderr.isatty())
    print(result)
    return 0 if result.healthy else 1


if __name__ == "__main__":
    sys.exit(main())
