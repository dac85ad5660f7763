"""What `make test` runs, part by part: parts.py [NAME ...]. All parts run, also after one that failed.

A part stops at the first of its commands that fails. At the end stands a table of the parts, their seconds
and what came of them; the exit status says whether all passed.
"""

import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
MINUTES = 25  # all parts, on two otherwise idle cores
PYTHON = ".venv/bin/python"
PARTS = {
    "checks": (
        f"{PYTHON} -m ruff check .",
        f"{PYTHON} -m ruff format --check .",
        ".venv/bin/codespell",
        f"{PYTHON} tools/lint_notebooks.py chapters/*.ipynb",
        f"{PYTHON} -m mypy",
    ),
    "book": (f"{PYTHON} tools/build_book.py",),
    "unit tests": (
        f"{PYTHON} -m coverage erase",
        f"{PYTHON} -m coverage run -m pytest -q -n 2 -m 'not browser and not lab' tests",
    ),
    "doctests": (f"{PYTHON} -m coverage run -m pytest -q -n 2 --doctest-modules lib",),
    "coverage": (
        f"{PYTHON} -m coverage combine -q",
        f"{PYTHON} -m coverage report --skip-covered",
    ),
    "notebooks": (
        f"{PYTHON} -m pytest -q -n 2 --dist loadfile -p course.repeats --nbval-lax --nbval-current-env"
        " --nbval-cell-timeout=600 --nbval-sanitize-with tests/nbval.cfg chapters",
    ),
    "browser": (f"{PYTHON} -m pytest -q -n 2 --dist loadgroup -m browser tests",),
}
NEEDS = {"browser": "book"}  # without a new book, the tests would look at an old one


def expanded(command: str) -> list[str]:
    """The words of a command, with file patterns replaced by the files that match, as a shell does."""
    words = []
    for word in shlex.split(command):
        files = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(word)) if "*" in word else []
        words += files or [word]
    return words


def passes(name: str) -> bool:
    return all(subprocess.run(expanded(command), cwd=ROOT).returncode == 0 for command in PARTS[name])


def run(names: list[str]) -> dict[str, tuple[float, str]]:
    """Seconds and result of every part, in order."""
    results: dict[str, tuple[float, str]] = {}
    for number, name in enumerate(names, 1):
        print(f"\n== {number} of {len(names)}: {name} ==", flush=True)
        needed = NEEDS.get(name)
        if needed in results and results[needed][1] != "passed":
            print(f"left out: it needs {needed}, which failed", flush=True)
            results[name] = 0.0, "left out"
            continue
        start = time.monotonic()
        result = "passed" if passes(name) else "FAILED"
        results[name] = time.monotonic() - start, result
    return results


def main() -> None:
    names = sys.argv[1:] or list(PARTS)
    if names == list(PARTS):
        print(
            f"{len(names)} parts, about {MINUTES} minutes on two idle cores; one that fails stops no other."
        )
    results = run(names)
    print(f"\n{'part':<12}{'seconds':>8}  result")
    for name, (seconds, result) in results.items():
        print(f"{name:<12}{seconds:>8.0f}  {result}")
    print(f"{'all':<12}{sum(seconds for seconds, _ in results.values()):>8.0f}")
    bad = [name for name, (_, result) in results.items() if result != "passed"]
    if bad:
        raise SystemExit(f"make: not passed: {', '.join(bad)}")
    print("All passed.")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("make: interrupted") from None
