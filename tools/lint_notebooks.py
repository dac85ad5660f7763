"""List what a reader would trip over in committed notebooks.

usage: lint_notebooks.py FILE.ipynb ...      exit 1 when anything is listed

Looks for cells that were never executed or executed out of order, stored errors and warnings, absolute paths
of somebody's machine, notebooks over 1 MB, chapters without the headings that every chapter has, chapters in
which no output is compared when the notebooks are re-executed, and settled claims that are not compared.
"""

import re
import sys
from pathlib import Path

import nbformat

LIMIT_BYTES = 1_000_000
COMPARED = "nbval-check-output"
CLAIM_MIME = "application/vnd.bnlab.claim+json"
HEADINGS = (
    "Question",
    "Your prediction",
    "Experiment",
    "What we measured",
    "Verdict",
    "Exercises",
    "Take-away",
)
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:tmp|root|work|home/\w+|Users/\w+|var/\w+)/[\w.\-/]+")


def output_text(output: nbformat.NotebookNode) -> str:
    """Everything in an output that a reader would read."""
    data = output.get("data", {})
    texts = [value for mime, value in data.items() if mime.startswith("text/")]
    return "\n".join([output.get("text", ""), *texts, *output.get("traceback", [])])


def problems(path: Path) -> list[str]:
    """Each problem of one notebook, as a sentence."""
    found = []
    size = path.stat().st_size
    if size > LIMIT_BYTES:
        found.append(f"is {size / 1e6:.1f} MB; the limit is {LIMIT_BYTES / 1e6:.0f} MB")
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    if code and code[0].get("id") == "colab" and code[0].execution_count is None:
        del code[0]  # tools/colab_cell.py put it there; it does nothing where the book is made
    counts = [cell.execution_count for cell in code]
    if counts != list(range(1, len(code) + 1)):
        found.append("was not executed from top to bottom in one run")
    for number, cell in enumerate(code, 1):
        tags = cell.metadata.get("tags", [])
        if COMPARED in tags and not cell.outputs:
            found.append(f"code cell {number} is to be compared and has no output")
        if COMPARED not in tags and any(CLAIM_MIME in output.get("data", {}) for output in cell.outputs):
            found.append(f"code cell {number} settles a claim and is not tagged {COMPARED}")
        for output in cell.outputs:
            if output.output_type == "error" and "raises-exception" not in tags:
                found.append(f"code cell {number} stores the error {output.ename}")
            if output.get("name") == "stderr":
                found.append(f"code cell {number} stores stderr: {output.text.strip()[:80]!r}")
            if match := MACHINE_PATH.search(output_text(output)):
                found.append(f"code cell {number} shows a path of a machine: {match.group(0)[:60]}")
    if re.match(r"\d\d-", path.name):
        prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        titles = [title.strip() for title in re.findall(r"^#+\s+(.+)$", prose, re.MULTILINE)]
        missing = [name for name in HEADINGS if not any(title.startswith(name) for title in titles)]
        if missing:
            found.append("has no heading " + ", ".join(missing))
        if not any(COMPARED in cell.metadata.get("tags", []) for cell in code):
            found.append(f"has no cell tagged {COMPARED}")
    return found


def main(names: list[str]) -> int:
    listed = [f"{name}: {problem}" for name in names for problem in problems(Path(name))]
    print("\n".join(listed) or f"{len(names)} notebooks: nothing to mend")
    return 1 if listed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
