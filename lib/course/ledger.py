"""The ledger: every claim of `claims.yml` with the number that a chapter measured, and where to see it."""

import json
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path

from IPython.display import display

from .claims import CLAIM_MIME, bar, basis, claim_of, flags, load_claims, number
from .repeats import edited
from .tables import table

VERDICTS = ("supported", "mixed", "undecided", "not supported")


def findings(folder: str | Path = ".") -> list[dict]:
    """What the chapters in `folder` measured, in the order of the chapters and of `claims.yml`.

    Raises ValueError for a claim that its chapter does not settle or settles twice, a stored claim that
    differs from `claims.yml`, and a verdict that does not follow from its numbers.
    """
    found = []
    for claim in load_claims(Path(folder) / "claims.yml").values():
        stored = [
            data
            for data in settled(Path(folder) / f"{claim.chapter}.ipynb")
            if data[CLAIM_MIME]["claim"]["id"] == claim.id
        ]
        if len(stored) != 1:
            raise ValueError(
                f"{claim.id}: to be settled once in {claim.chapter}, was {len(stored)} times; run the chapter"
            )
        result, text, html = (stored[0][mime] for mime in (CLAIM_MIME, "text/plain", "text/html"))
        if claim_of(result) != claim:
            changed = [
                name for name, value in vars(claim_of(result)).items() if value != getattr(claim, name)
            ]
            raise ValueError(
                f"{claim.id}: {', '.join(changed)} in {claim.chapter} and in claims.yml differ; "
                "run the chapter again"
            )
        if problem := edited(result, "".join(text), "".join(html)):
            raise ValueError(problem)
        found.append(result)
    return sorted(found, key=lambda result: result["claim"]["chapter"])


def settled(notebook: Path) -> list[dict]:
    """The outputs that `settle` left in an executed notebook."""
    if not notebook.exists():
        return []
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return [data for output in outputs if CLAIM_MIME in (data := output.get("data", {}))]


SOURCES = {
    "ioffe2015batch": "Ioffe and Szegedy (2015)",
    "santurkar2018how": "Santurkar et al. (2018)",
    "notes": "the lecture notes",
    "practice": "common practice",
    "course": "this course",
}
LATER = "other work"


def count(found: Sequence[dict]) -> None:
    """Publish how many claims of each source have which verdict, and how many intervals they rest on."""
    rows = []
    for source in (*SOURCES.values(), LATER):
        verdicts = Counter(f["verdict"] for f in found if SOURCES.get(f["claim"]["by"], LATER) == source)
        rows.append([source, *(verdicts[verdict] for verdict in VERDICTS), verdicts.total()])
    total = [sum(column) for column in zip(*(row[1:] for row in rows), strict=True)]
    settings = [row for result in found for row in result["settings"]]
    intervals = sum(row["kind"] in ("t", "bootstrap") and row["low"] < row["high"] for row in settings)
    caption = (
        f"Claims and verdicts. They rest on {intervals} intervals at 95 %, of which about "
        f"{intervals / 20:.0f} are expected to miss the true mean, and nobody knows which."
    )
    table(["claimed by", *VERDICTS, "all"], [*rows, ["together", *total]], caption=caption)


def ledger(found: Sequence[dict]) -> None:
    """Publish a table: the claim and its place, the number with its rule, the verdict with its link."""
    if not found:
        display({"text/html": "<p>None at the moment.</p>", "text/plain": "None at the moment."}, raw=True)
        return
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Claim", "Measured", "Verdict"))
    rows = "".join(map(_row, found))
    html = (
        f'<table class="table bn-table bn-ledger"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    )
    display({"text/html": html, "text/plain": "\n".join(map(_line, found))}, raw=True)


def _row(result: dict) -> str:
    claim = claim_of(result)
    place = f"{SOURCES.get(claim.by, LATER)}, {claim.where}"
    numbers = "<br>".join(
        (f"{escape(row['setting'])}: " if row["setting"] else "")
        + f"{number(claim, row['estimate'], row['low'], row['high'])} "
        + f"<small>{basis(row)}</small> {bar(claim, row)}"
        for row in result["settings"]
    )
    said = f"<small>{flags(result)}</small><br>" if flags(result) else ""
    return (
        f'<tr><th scope="row">{escape(claim.says)}<br><small>{escape(place)}</small></th>'
        f"<td>{numbers}<br><small>{escape(claim.measure)}; {claim.rule()}</small></td>"
        f'<td><a href="{claim.chapter}.html#claim-{claim.id}">{result["verdict"]}</a>'
        f"<br>{said}<small>chapter {int(claim.chapter[:2])}</small></td></tr>"
    )


def _line(result: dict) -> str:
    claim = claim_of(result)
    numbers = "; ".join(
        (f"{row['setting']}: " if row["setting"] else "")
        + number(claim, row["estimate"], row["low"], row["high"])
        for row in result["settings"]
    )
    return f"{result['verdict']:14}{numbers:26}{claim.rule():26}{claim.says}"
