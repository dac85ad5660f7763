"""Tables of measured numbers, readable as HTML, as plain text, and by a screen reader."""

from collections.abc import Sequence
from html import escape

from IPython.display import display


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, caption: str) -> None:
    """Publish a table; the first entry of each row names it. Round numbers before they come here.

    Raises ValueError when a row is longer or shorter than `columns`.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    for row in cells:
        if len(row) != len(columns):
            raise ValueError(
                f"rows: {row} has {len(row)} entries, columns has {len(columns)}; make them equal"
            )
    first, *others = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    lines = [
        name.ljust(first) + "".join(f"  {cell:>{width}}" for cell, width in zip(entries, others, strict=True))
        for name, *entries in (columns, *cells)
    ]
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f'<td style="text-align: right">{escape(cell)}</td>' for cell in row[1:])
        + "</tr>"
        for row in cells
    )
    html = (
        f'<table class="table bn-table"><caption style="color: inherit">{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )
    display({"text/html": html, "text/plain": "\n".join([caption, *lines])}, raw=True)
