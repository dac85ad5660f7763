"""The result of a check-up, and how it shows itself: as text, in a notebook, as a table and as a figure."""

from __future__ import annotations

import html
import math
import textwrap
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .findings import Finding
from .limits import LIMITS
from .measurements import LayerNumbers, Mode

if TYPE_CHECKING:
    import pandas

CHECKED = (
    "start values left in the statistics, stored against retaken mean and spread, momentum against "
    "the noise of the "
    "batches, composition of the batches, calls per pass, values per statistic, dropout in front, "
    "eps, dead and "
    "switched-off channels, mean over spread, NaN and infinity, recomputation, frozen layers, bias "
    "or another norm in "
    "front, the normalized dimension"
)
_WIDTH = 100


@dataclass(frozen=True, eq=False)
class Checkup:
    """What a check-up found. Print it, or look at it in a notebook; `frame` and `plot` show the layers."""

    findings: tuple[Finding, ...]  # the most important first
    head: dict[str, Mode]  # losses and accuracies on the same batches, by mode
    layers: tuple[LayerNumbers, ...]  # in the order in which they run
    batches: int
    batch_size: int
    passes: int
    not_checked: tuple[str, ...]  # what needs an argument that was not given

    @property
    def healthy(self) -> bool:
        """Whether nothing above a note was found."""
        return all(finding.level == "note" for finding in self.findings)

    @property
    def causes(self) -> tuple[str, ...]:
        """The causes found, the most important first."""
        return tuple(finding.cause for finding in self.findings)

    def frame(self) -> pandas.DataFrame:
        """One row per layer, in the order in which they run, one column per quantity."""
        import pandas

        return pandas.DataFrame([asdict(numbers) for numbers in self.layers]).set_index("name")

    def plot(self, ax: Any = None) -> Any:
        """The layers in order against the three quantities that come closest to, or exceed, their limits.

        Needs matplotlib. Drawn is each quantity over the limit of healthy networks, which is the line at 1.
        """
        import matplotlib.pyplot as plt

        ax = plt.subplots()[1] if ax is None else ax
        places = range(len(self.layers))
        worst = self._worst_quantities()
        for (name, values), marker in zip(worst, "os^", strict=False):
            ax.plot(places, values, marker=marker, label=name.replace("_", " "))
        ax.axhline(1, color="0.5", linestyle="--", label="limit of healthy networks")
        ax.set_xticks(list(places), [numbers.name for numbers in self.layers], rotation=45, ha="right")
        ax.set(ylabel="quantity / limit", ylim=(0, None))
        ax.legend()
        return ax

    def _worst_quantities(self) -> list[tuple[str, list[float]]]:
        columns = {}
        for name, limit in LIMITS.items():
            values = [getattr(numbers, name, math.nan) for numbers in self.layers]
            if name == "independent":
                values = [limit.value / value if value else math.nan for value in values]
            else:
                values = [abs(value) / limit.value for value in values]
            if any(math.isfinite(value) for value in values):
                columns[name] = values
        return sorted(columns.items(), key=lambda item: -max(v for v in item[1] if math.isfinite(v)))[:3]

    def _head_rows(self) -> list[tuple[str, str, str]]:
        return [(name, _number(mode.loss), _number(mode.accuracy, ".1%")) for name, mode in self.head.items()]

    def _summary(self) -> str:
        counts = [
            (level, sum(f.level == level for f in self.findings)) for level in ("fault", "warning", "note")
        ]
        said = ", ".join(f"{n} {level}{'s' if n > 1 else ''}" for level, n in counts if n)
        return said or "nothing found"

    def _blamed(self) -> list[LayerNumbers]:
        blamed = [n for n in self.layers if n.blame == n.blame]
        return sorted(blamed, key=lambda n: -n.blame)[:3]

    def _closing(self) -> list[str]:
        lines = []
        if not self.findings:
            lines.append(f"Checked in {len(self.layers)} layers: {CHECKED}.")
        if self.not_checked:
            lines.append("Not checked: " + "; ".join(self.not_checked) + ".")
        return lines

    def __str__(self) -> str:
        size = f"{self.batches} batches of {self.batch_size}"
        lines = [f"Check-up of {len(self.layers)} normalization layers: {self._summary()}"]
        lines.append(f"({size}, {self.passes} forward passes)")
        lines.append("")
        width = max(len(row[0]) for row in self._head_rows())
        lines.append(f"  {'the same batches':{width}}  {'loss':>8}  {'accuracy':>8}")
        lines += [f"  {name:{width}}  {loss:>8}  {accuracy:>8}" for name, loss, accuracy in self._head_rows()]
        if self._blamed():
            blamed = ", ".join(f"{n.name} {n.blame:+.2g}" for n in self._blamed())
            lines += ["", f"  what the stored statistics of one layer alone add to the loss: {blamed}"]
        for number, finding in enumerate(self.findings, 1):
            lines += ["", f"{number}. {finding.level.upper()}: {finding.cause}"]
            lines += _paragraph("measured", finding.measured)
            lines += _paragraph("effect", finding.effect)
            lines += _paragraph("to do", finding.remedy)
        for line in self._closing():
            lines += ["", *textwrap.wrap(line, _WIDTH)]
        return _minus("\n".join(lines))

    def __repr__(self) -> str:
        return f"<Checkup of {len(self.layers)} layers: {self._summary()}>"

    def _repr_html_(self) -> str:
        cell = 'style="text-align:left;padding:.15em .8em;border-bottom:1px solid currentColor"'
        rows = [("the same batches", "loss", "accuracy"), *self._head_rows()]
        table = "".join(
            "<tr>" + "".join(f"<td {cell}>{html.escape(value)}</td>" for value in row) + "</tr>"
            for row in rows
        )
        items = "".join(
            f'<li style="margin:.6em 0"><b>{f.level}: {html.escape(f.cause)}</b>'
            f"<br>{html.escape(f.measured)}<br>{html.escape(f.effect)}<br>&rarr; {html.escape(f.remedy)}</li>"
            for f in self.findings
        )
        closing = "".join(f"<p>{html.escape(line)}</p>" for line in self._closing())
        title = f"Check-up of {len(self.layers)} normalization layers: {self._summary()}"
        return _minus(
            f'<div style="color:currentColor;background:transparent"><p><b>{title}</b><br>'
            f"{self.batches} batches of {self.batch_size}, {self.passes} forward passes</p>"
            f'<table style="border-collapse:collapse;color:inherit;background:transparent">{table}</table>'
            f"<ol>{items}</ol>{closing}</div>"
        )


def _paragraph(name: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=f"   {name:<9} ",
        subsequent_indent=" " * 13,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _number(value: float, style: str = ".3g") -> str:
    return "" if math.isnan(value) else format(value, style)


def _minus(text: str) -> str:
    """A typographic minus in front of digits; hyphens inside words and code stay."""
    import re

    return re.sub(r"(?<![\w)\]-])-(?=\d)", "\N{MINUS SIGN}", text)
