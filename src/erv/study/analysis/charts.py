"""The report's charts: points with intervals, in one style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from erv.evaluate.intervals import Interval
from erv.figures.drawing import COLOURS, draw, note

_WIDTH, _ROW = 520, 32


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        label: names it.
        interval: value, low and high in the chart's unit; all None where there is no figure.
        colour: name of the colour.
        said: the figures in words.
    """

    label: str
    interval: Interval
    colour: str
    said: str


def interval_chart(
    lines: Sequence[Line],
    *,
    title: str,
    ends: tuple[float, float],
    ticks: Sequence[float],
    even: float | None,
    unit: str,
) -> Markup:
    """One point with its interval per line.

    Args:
        lines: from top to bottom.
        title: names the chart for readers who can't see it.
        ends: of the axis.
        ticks: labelled places on it.
        even: where a dashed line stands for "no difference", or None.
        unit: what the axis shows.
    """

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        if even is not None:
            axes.axvline(even, color=COLOURS["soft"], linewidth=1, linestyle=(0, (3, 4)))
        for place, line in enumerate(lines):
            value, low, high = (line.interval[end] for end in ("value", "low", "high"))
            if value is None or low is None or high is None:
                continue
            colour = COLOURS[line.colour]
            axes.hlines(place, low, high, color=colour, linewidth=4, alpha=0.55)
            note(axes.scatter(value, place, s=120, color=colour, linewidth=0), f"{line.label}: {line.said}")
        axes.set_xlim(*ends)
        axes.set_xticks(list(ticks), [f"{tick:g}" for tick in ticks])
        axes.set_xlabel(unit)
        axes.grid(axis="x")
        axes.set_yticks(range(len(lines)), [line.label for line in lines], color=COLOURS["ink"])
        axes.set_ylim(len(lines) - 0.5, -0.5)
        right = axes.twinx()
        right.set_ylim(axes.get_ylim())
        right.set_yticks(range(len(lines)), [line.said for line in lines])

    return draw(
        paint,
        size=(_WIDTH, 52 + _ROW * len(lines)),
        title=title,
        description=f"{unit}: " + "; ".join(f"{line.label} {line.said}" for line in lines),
    )
