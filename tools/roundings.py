"""Re-execute every notebook under other orders of sums, and write down what moved: make roundings

usage: roundings.py [-n WORKERS] [ROUNDING ...]      exit 1 when a claim or an output did not repeat

Other instructions add in another order, and training is chaotic: this shows what another processor would do.
The table goes to tests/roundings.md; roundings that are not named keep the lines they have there.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import torch

from course.manifests import device_name

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "tests" / "roundings.md"
ROUNDINGS: dict[str, dict[str, str]] = {
    "native": {},
    "all": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_CBWR": "COMPATIBLE",
    },
    "onednn": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "mkl": {"MKL_CBWR": "COMPATIBLE"},
    "threads": {"OMP_NUM_THREADS": "2"},
}
# Experiments ask for one thread; here they get two.
TWO_THREADS = "import torch\ntorch.set_num_threads(2)\ntorch.set_num_threads = lambda number: None\n"


def execute(name: str, workers: int) -> tuple[list[dict], dict[str, int], float]:
    """The moves of all claims, the cells of each notebook that did not repeat, and the seconds it took."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, **ROUNDINGS[name]}
        if name == "threads":
            Path(folder, "sitecustomize.py").write_text(TWO_THREADS)
            environment["PYTHONPATH"] = folder
            workers = 1
        moves, report = Path(folder, "moves.jsonl"), Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "course.repeats", "-n", str(workers)]
        command += ["--dist", "loadfile", "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=900"]
        command += ["--nbval-sanitize-with", "tests/nbval.cfg", "--junitxml", str(report), "--tb=short"]
        start = time.perf_counter()
        subprocess.run([*command, "--moves", str(moves), "chapters"], cwd=ROOT, env=environment, check=False)
        failed: dict[str, int] = defaultdict(int)
        for case in ElementTree.parse(report).iter("testcase"):
            if case.find("failure") is not None or case.find("error") is not None:
                failed[Path(case.get("classname", "").replace(".", "/")).name] += 1
        lines = moves.read_text().splitlines() if moves.exists() else []
        return [json.loads(line) for line in lines], failed, time.perf_counter() - start


def row(name: str, moves: list[dict], failed: dict[str, int], seconds: float) -> list[str]:
    """One line a chapter: largest move, words that changed, close calls, cells that did not repeat."""
    machine = f"{device_name('cpu').split(',')[0]}, torch {torch.__version__}, {datetime.now(UTC).date()}"
    lines = []
    for chapter in sorted({move["notebook"] for move in moves} | set(failed)):
        ours = [move for move in moves if move["notebook"] == chapter]
        measured = [move for move in ours if move["kind"] == "measured"]
        largest = max(measured, key=lambda move: move["half_widths"], default=None)
        changed = [f"{m['claim']}: {m['stored']} to {m['now']}" for m in ours if m["stored"] != m["now"]]
        close = sum(move["close_call"] for move in ours)
        moved = f"{largest['half_widths']:.2f} ({largest['claim']})" if largest else "none"
        cells = [name, chapter, moved, "; ".join(changed) or "none", str(close), str(failed.get(chapter, 0))]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, f"| {name} | *{machine}, {seconds / 60:.0f} minutes* | | | | |"]


def write(lines: dict[str, list[str]]) -> None:
    """The table, one block a rounding."""
    head = (
        "# What moves under another order of sums\n\n"
        "Written by `make roundings`. *Largest move*: of an estimate, in half-widths of its stored interval. "
        "*native* is the machine that ran this table against the stored notebooks.\n\n"
        + "".join(
            f"- {name}: {' '.join(f'{k}={v}' for k, v in e.items()) or 'as it is'}\n"
            for name, e in ROUNDINGS.items()
        )
        + "\n| rounding | notebook | largest move | words that changed | close calls | cells that failed |\n"
        "|---|---|---|---|---|---|\n"
    )
    TABLE.write_text(head + "".join(f"{line}\n" for name in ROUNDINGS for line in lines.get(name, [])))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "names", nargs="*", metavar="ROUNDING", help=f"of {', '.join(ROUNDINGS)}; all if none"
    )
    parser.add_argument("-n", type=int, default=2, help="worker processes")
    options = parser.parse_args()
    if unknown := set(options.names) - set(ROUNDINGS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(ROUNDINGS)}")
    old = TABLE.read_text().splitlines() if TABLE.exists() else []
    lines = {name: [line for line in old if line.startswith(f"| {name} |")] for name in ROUNDINGS}
    bad = False
    for name in options.names or ROUNDINGS:
        print(f"Rounding {name} ...", flush=True)
        moves, failed, seconds = execute(name, options.n)
        lines[name] = row(name, moves, failed, seconds)
        write(lines)
        bad |= bool(failed)
    print(f"written: {TABLE.relative_to(ROOT)}")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
