"""Give every notebook a first cell for Colab: BOOK_REPOSITORY=https://github.com/OWNER/NAME colab_cell.py

Colab opens one notebook of a repository, on a machine that knows nothing of `bnlab`. There the cell fetches
the repository, installs the library and goes to the chapters; elsewhere it does nothing, and the book leaves
it out. Run this again when the address changes. The book offers Colab once every notebook has its cell.
"""

import os
from pathlib import Path

import nbformat

CHAPTERS = Path(__file__).parents[1] / "chapters"
CELL_ID = "colab"
SOURCE = """\
# In Colab, bnlab is missing: fetch and install it. Elsewhere this does nothing.
import importlib.util

if importlib.util.find_spec("bnlab") is None:
    !git clone --quiet --depth 1 {address} book
    %pip install --quiet ./book ./book/lib
    %cd -q book/chapters"""


def add_cell(notebook: nbformat.NotebookNode, address: str) -> None:
    """Put the cell below the title, in place of the one that is there."""
    kept = [cell for cell in notebook.cells if cell.id != CELL_ID]
    metadata = {"tags": ["remove-cell"]}
    cell = nbformat.v4.new_code_cell(SOURCE.format(address=address), id=CELL_ID, metadata=metadata)
    notebook.cells = [kept[0], cell, *kept[1:]]


def main() -> None:
    address = os.environ.get("BOOK_REPOSITORY", "").rstrip("/")
    if not address.startswith("https://github.com/"):
        raise SystemExit(
            "colab_cell: set BOOK_REPOSITORY to the address of the repository on GitHub, such as "
            f"https://github.com/OWNER/NAME, where Colab can read it; got {address!r}"
        )
    paths = sorted(CHAPTERS.glob("*.ipynb"))
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        add_cell(notebook, address)
        nbformat.write(notebook, path)
    print(f"{len(paths)} notebooks fetch {address} in Colab; commit them")


if __name__ == "__main__":
    main()
