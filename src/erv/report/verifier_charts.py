"""How good the verifier is, as inline SVG: precision against recall, and what its probabilities are worth.

Curves take the colours of their emotions from the page's style sheet (classes named like the labels).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from markupsafe import Markup

from erv.report.charts import svg

_SIDE, _LEFT, _TOP = 210, 40, 12


def precision_recall_chart(per_label: Mapping[str, Mapping[str, Any]]) -> Markup:
    """Precision (up) against recall (across), a curve per label that occurs.

    Args:
        per_label: of `erv.train_erv.scores.classification_report`.
    """
    parts = _axes("recall", "precision")
    for label, row in per_label.items():
        if row["curve"] is None:
            continue
        points = zip(row["curve"]["recall"], row["curve"]["precision"], strict=True)
        line = " ".join(f"{_x(across):.1f},{_y(up):.1f}" for across, up in points)
        told = f"{label}: average precision {100 * row['average_precision']:.1f}, {row['support']} texts"
        title = f"<title>{escape(told)}</title>"
        parts.append(f'<polyline class="curve {escape(label)}" points="{line}">{title}</polyline>')
    return svg(parts, _LEFT + _SIDE + 12, _TOP + _SIDE + 40, "Precision against recall of each emotion")


def reliability_chart(bins: Sequence[Mapping[str, float]]) -> Markup:
    """How often a label is true (up) where its probability is about so much (across); the line is right.

    Args:
        bins: of `erv.train_erv.scores.reliability`.
    """
    parts = _axes("probability", "true")
    parts.append(f'<line class="zero" x1="{_x(0):.1f}" y1="{_y(0):.1f}" x2="{_x(1):.1f}" y2="{_y(1):.1f}"/>')
    most = max((row["decisions"] for row in bins), default=1)
    for row in bins:
        radius = 2.5 + 6.0 * (row["decisions"] / most) ** 0.5
        told = (
            f"{row['decisions']:.0f} decisions: probability {row['probability']:.2f},"
            f" true {row['frequency']:.2f}"
        )
        parts.append(
            f'<circle class="dot flat" cx="{_x(row["probability"]):.1f}" cy="{_y(row["frequency"]):.1f}"'
            f' r="{radius:.1f}"><title>{told}</title></circle>'
        )
    return svg(parts, _LEFT + _SIDE + 12, _TOP + _SIDE + 40, "Probability against frequency")


def _axes(across: str, up: str) -> list[str]:
    below, middle = _TOP + _SIDE, _TOP + _SIDE / 2
    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = _x(tick), _y(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_LEFT + _SIDE}" y1="{y:.1f}" y2="{y:.1f}"/>')
        for place, anchor in (
            (f'x="{_LEFT - 6}" y="{y + 4:.1f}"', "end"),
            (f'x="{x:.1f}" y="{below + 16}"', "middle"),
        ):
            parts.append(f'<text class="tick" {place} text-anchor="{anchor}">{100 * tick:.0f}</text>')
    for text, place in (
        (across, f'x="{_LEFT + _SIDE / 2}" y="{below + 34}"'),
        (up, f'x="11" y="{middle}" transform="rotate(-90 11 {middle})"'),
    ):
        parts.append(f'<text class="label" {place} text-anchor="middle">{text}</text>')
    return parts


def _x(share: float) -> float:
    return _LEFT + _SIDE * share


def _y(share: float) -> float:
    return _TOP + _SIDE * (1 - share)
