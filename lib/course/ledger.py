"""The ledger: every claim of `claims.yml` with the number that a chapter measured, and where to see it."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path

from IPython.display import display

from .claims import CLAIM_MIME, MINUS, Claim, load_claims
from .tables import table

VERDICTS = ("supported", "mixed", "not supported")


@dataclass(frozen=True)
class Finding:
    """A claim and what came out. `low` and `high` are the ends of the 95 % interval over seeds."""

    claim: Claim
    estimate: float
    low: float
    high: float
    seeds: int
    basis: str  # in words, as the chapter prints it
    verdict: str

    @property
    def numbers(self) -> str:
        """The estimate, and the interval where it is wider than the digits that repeat on another machine."""
        estimate, low, high = (f"{x:.{self.claim.digits}f}" for x in (self.estimate, self.low, self.high))
        numbers = estimate if low == high else f"{estimate} [{low}, {high}]"
        return numbers.replace("-", MINUS)


def findings(folder: str | Path = ".") -> list[Finding]:
    """What the chapters in `folder` measured, in the order of the chapters and of `claims.yml`.

    Raises ValueError for a claim that its chapter does not settle or settles twice, a stored claim that
    differs from `claims.yml`, and a verdict that does not follow from the interval.
    """
    found = []
    for claim in load_claims(Path(folder) / "claims.yml").values():
        stored = [r for r in settled(Path(folder) / f"{claim.chapter}.ipynb") if r["id"] == claim.id]
        if len(stored) != 1:
            raise ValueError(
                f"{claim.id}: to be settled once in {claim.chapter}, was {len(stored)} times; run the chapter"
            )
        (result,) = stored
        for name, listed in asdict(claim).items():
            if result[name] != (list(listed) if isinstance(listed, tuple) else listed):
                raise ValueError(
                    f"{claim.id}: {name} is {result[name]!r} in {claim.chapter} and {listed!r} in "
                    "claims.yml; run the chapter again"
                )
        if (verdict := claim.verdict(result["low"], result["high"])) != result["verdict"]:
            raise ValueError(
                f"{claim.id}: [{result['low']}, {result['high']}] makes it {verdict!r}, "
                f"{claim.chapter} says {result['verdict']!r}; run the chapter again"
            )
        stored_fields = ("estimate", "low", "high", "seeds", "basis", "verdict")
        found.append(Finding(claim, **{key: result[key] for key in stored_fields}))
    return sorted(found, key=lambda finding: finding.claim.chapter)


def settled(notebook: Path) -> list[dict]:
    """What `settle` left in the outputs of an executed notebook."""
    if not notebook.exists():
        return []
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return [data[CLAIM_MIME] for output in outputs if CLAIM_MIME in (data := output.get("data", {}))]


SOURCES = {
    "ioffe2015batch": "Ioffe and Szegedy (2015)",
    "santurkar2018how": "Santurkar et al. (2018)",
    "notes": "the lecture notes",
    "practice": "common practice",
    "course": "this course",
}
LATER = "other work"


def count(found: Sequence[Finding]) -> None:
    """Publish how many claims of each source have which verdict."""
    rows = []
    for source in (*SOURCES.values(), LATER):
        verdicts = Counter(f.verdict for f in found if SOURCES.get(f.claim.by, LATER) == source)
        rows.append([source, *(verdicts[verdict] for verdict in VERDICTS), verdicts.total()])
    total = [sum(column) for column in zip(*(row[1:] for row in rows), strict=True)]
    table(["claimed by", *VERDICTS, "all"], [*rows, ["together", *total]], caption="Claims and verdicts.")


def ledger(found: Sequence[Finding]) -> None:
    """Publish a table: the claim and its place, the number that decides, the verdict with its link."""
    rows, lines = [], []
    for finding in found:
        claim = finding.claim
        place = f"{SOURCES.get(claim.by, LATER)}, {claim.where}"
        usual = finding.basis.startswith("95 %") and "[" in finding.numbers
        seeds = f"{finding.seeds} seeds" if usual else finding.basis
        rows.append(
            f'<tr><th scope="row">{escape(claim.says)}<br><small>{escape(place)}</small></th>'
            f"<td>{escape(finding.numbers)}<br>"
            f"<small>{escape(claim.measure)}; {seeds}</small></td>"
            f'<td><a href="{claim.chapter}.html#claim-{claim.id}">{finding.verdict}</a>'
            f"<br><small>chapter {int(claim.chapter[:2])}</small></td></tr>"
        )
        lines.append(f"{finding.verdict:14}{finding.numbers:26}{claim.says}")
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Claim", "Measured", "Verdict"))
    html = (
        '<table class="table bn-table bn-ledger"><thead>'
        f"<tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )
    display({"text/html": html, "text/plain": "\n".join(lines)}, raw=True)
