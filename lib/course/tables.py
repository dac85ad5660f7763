"""Tables of measured numbers, readable as HTML, as plain text, and by a screen reader."""

from collections.abc import Mapping, Sequence
from html import escape

import pandas as pd
from IPython.display import display

from bnlab.stats import Interval

from .prose import typeset, typeset_interval


def table(
    frame: pd.DataFrame | Sequence[str],
    rows: Sequence[Sequence[object]] | None = None,
    *,
    caption: str,
    formats: str | Mapping[str, str] = "",
    intervals: Mapping[str, tuple[str, str, str]] | None = None,
) -> None:
    """Publish a table: a frame, whose index names the rows, or the names of columns with their `rows`.

    The first entry of each row names it. Numbers of a frame, and intervals everywhere, are written by
    `course.typeset` with the format of their column, or the one format given for all. `intervals` joins
    three columns of a frame into one: {"gain": ("mean", "low", "high")} shows 6.9 [5.1, 9.3] as "gain".
    Other entries of `rows` are shown as they are; numeric ones get minus signs.

    Raises ValueError when a row is longer or shorter than the columns, or when `formats` or `intervals` name
    a column that is not there.

    >>> frame = pd.DataFrame({"loss": [0.213, 0.187]}, index=pd.Index(["SGD", "Adam"], name="optimizer"))
    >>> table(frame, caption="Final loss.", formats={"loss": ".2f"})  # doctest: +SKIP
    """
    if isinstance(frame, pd.DataFrame):
        columns, cells = _of_frame(frame, formats, intervals or {})
    else:
        columns, cells = list(frame), [[_cell(cell) for cell in row] for row in rows or ()]
    for row in cells:
        if len(row) != len(columns):
            raise ValueError(
                f"rows: {row} has {len(row)} entries, columns has {len(columns)}; make them equal"
            )
    text = "\n".join([caption, *_lines([columns, *cells])])
    display({"text/html": _html(columns, cells, caption), "text/plain": text}, raw=True)


def _of_frame(
    frame: pd.DataFrame, formats: str | Mapping[str, str], intervals: Mapping[str, tuple[str, str, str]]
) -> tuple[list[str], list[list[str]]]:
    """The columns of a frame, its index first, and its cells as text."""
    _known(frame, "intervals", [column for three in intervals.values() for column in three])
    if not isinstance(formats, str):
        _known(frame, "formats", [column for column in formats if column not in intervals])
    starts = {three[0]: (name, three) for name, three in intervals.items()}
    parts = {column for three in intervals.values() for column in three}
    names, body = [], []
    for column in frame.columns:
        if column in parts and column not in starts:
            continue
        name, three = starts.get(column, (column, ()))
        spec = formats if isinstance(formats, str) else formats.get(name, "")
        names.append(_head(name))
        if three:
            body.append([typeset_interval(ends, spec) for ends in frame[list(three)].to_numpy(float)])
        else:
            body.append([typeset(cell, spec) for cell in frame[column]])
    corner = ", ".join(str(name) for name in frame.index.names if name is not None)
    rows = zip(map(_head, frame.index), *body, strict=True)
    return [corner, *names], [list(row) for row in rows]


def _known(frame: pd.DataFrame, argument: str, columns: Sequence[str]) -> None:
    if missing := [column for column in columns if column not in frame.columns]:
        raise ValueError(
            f"{argument}: {missing} is not among the columns of the frame, {list(frame.columns)}"
        )


def _head(key: object) -> str:
    """The name of a row or a column; several levels are joined."""
    return ", ".join(_cell(level) for level in (key if isinstance(key, tuple) else (key,)))


def _cell(value: object) -> str:
    return typeset(value if isinstance(value, Interval) else str(value))


def _lines(cells: Sequence[Sequence[str]]) -> list[str]:
    """Rows of text, the first column to the left and the others to the right."""
    first, *others = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        name.ljust(first) + "".join(f"  {cell:>{width}}" for cell, width in zip(entries, others, strict=True))
        for name, *entries in cells
    ]


def _html(columns: Sequence[str], cells: Sequence[Sequence[str]], caption: str) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' if name else "<td></td>" for name in columns)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f'<td style="text-align: right">{escape(cell)}</td>' for cell in row[1:])
        + "</tr>"
        for row in cells
    )
    return (
        f'<table class="table bn-table"><caption style="color: inherit">{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )
