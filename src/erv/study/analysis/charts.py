"""The report's charts: points with intervals, as elements of the page.

No pictures: their text would shrink on a phone, and long names would leave no room for the intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from erv.evaluate.intervals import Interval


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        label: names it.
        interval: value, low and high in the chart's unit; all None where there is no figure.
        colour: name of the colour.
        said: the figures in words.
        group: heading of this line and of those that follow; empty if it is that of the line before.
    """

    label: str
    interval: Interval
    colour: str
    said: str
    group: str = ""


@dataclass(frozen=True)
class Chart:
    """One point with its interval per line.

    Attributes:
        title: names the chart for readers who can't see it.
        lines: from top to bottom.
        ends: of the axis.
        ticks: labelled places on it.
        even: where a dashed line stands for "no difference", or None.
        unit: what the axis shows.
    """

    title: str
    lines: Sequence[Line]
    ends: tuple[float, float]
    ticks: Sequence[float]
    even: float | None
    unit: str

    def place(self, value: float) -> str:
        """Where a value lies on the axis, as a length of CSS: `50%`."""
        low, high = self.ends
        return f"{min(100.0, max(0.0, 100 * (value - low) / (high - low))):.5g}%"

    def width(self, line: Line) -> str:
        """How long a line's interval is on the axis, as a length of CSS."""
        low, high = (line.interval[end] or 0.0 for end in ("low", "high"))
        return f"{100 * (high - low) / (self.ends[1] - self.ends[0]):.5g}%"
