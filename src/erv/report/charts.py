"""Charts as inline SVG, made by hand: a few bars and points need no plotting library, and bytes stay equal.

Colours come from the page's style sheet (classes `p0`, `p1`, ... per policy), so that charts follow light and
dark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from markupsafe import Markup

# Narrow drawings keep their letters readable on a phone; the page limits how far they grow.
_WIDTH = 520
_DIFFERENCE_WIDTH = 430


def bar_chart(
    values: Mapping[str, Mapping[str, Mapping[str, float]]], metrics: Sequence[str], names: Mapping[str, str]
) -> Markup:
    """Grouped bars with intervals: a group per metric, a bar per policy, 0 to 100 percent.

    Args:
        values: policy -> metric -> value, low, high as shares.
        metrics: the groups, in order.
        names: what to call each policy.
    """
    top, height, left = 12, 190, 32
    group = (_WIDTH - left) / len(metrics)
    bar = group * 0.78 / max(1, len(values))
    parts = []
    for tick in range(0, 101, 25):
        y = top + height * (1 - tick / 100)
        parts.append(f'<line class="grid" x1="{left}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{tick}</text>')
    for g, metric in enumerate(metrics):
        start = left + g * group + group * 0.11
        for i, (policy, by_metric) in enumerate(values.items()):
            item = by_metric[metric]
            x, y = start + i * bar, top + height * (1 - item["value"])
            low, high = top + height * (1 - item["low"]), top + height * (1 - item["high"])
            middle = x + bar * 0.46
            label = f"{names[policy]}, {metric}: {_interval_text(item)}"
            parts.append(
                f'<rect class="p{i}" x="{x:.1f}" y="{y:.1f}" width="{bar * 0.92:.1f}"'
                f' height="{max(0.5, top + height - y):.1f}" rx="3"><title>{escape(label)}</title></rect>'
            )
            parts.append(
                f'<path class="whisker" d="M{middle:.1f} {low:.1f}V{high:.1f}'
                f'M{middle - 4:.1f} {low:.1f}h8M{middle - 4:.1f} {high:.1f}h8"/>'
            )
        parts.append(
            f'<text class="label" x="{left + (g + 0.5) * group:.1f}" y="{top + height + 22}"'
            f' text-anchor="middle">{escape(metric)}</text>'
        )
    return svg(parts, _WIDTH, top + height + 30, "Metrics of the policies in percent, with intervals")


def difference_chart(values: Mapping[str, Mapping[str, float]], title: str) -> Markup:
    """A point with its interval per metric, in percentage points around zero.

    Args:
        values: metric -> value, low, high as shares.
        title: what is compared with what.
    """
    left, right, row = 44, 158, 28
    width = _DIFFERENCE_WIDTH
    reach = max(0.05, *(abs(item[end]) for item in values.values() for end in ("low", "high"))) * 1.08
    middle, scale = left + (width - left - right) / 2, (width - left - right) / 2 / reach
    bottom = len(values) * row + 6
    parts = [f'<line class="zero" x1="{middle:.1f}" x2="{middle:.1f}" y1="2" y2="{bottom}"/>']
    for index, (metric, item) in enumerate(values.items()):
        y = index * row + 20
        low, value, high = (middle + scale * item[end] for end in ("low", "value", "high"))
        kind = "up" if item["low"] > 0 else "down" if item["high"] < 0 else "flat"
        parts.append(f'<text class="label" x="0" y="{y + 5}">{escape(metric)}</text>')
        parts.append(f'<line class="span {kind}" x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="dot {kind}" cx="{value:.1f}" cy="{y}" r="6"/>')
        parts.append(
            f'<text class="tick" x="{width}" y="{y + 5}" text-anchor="end">{100 * item["value"]:+.1f}'
            f" ({100 * item['low']:+.1f} to {100 * item['high']:+.1f})</text>"
        )
    return svg(parts, width, bottom + 4, title)


def svg(parts: Sequence[str], width: int, height: float, title: str) -> Markup:
    """A drawing of finished elements; whoever makes them escapes their texts."""
    body = "".join(parts)
    return Markup(  # noqa: S704
        f'<svg viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{escape(title)}"'
        f' xmlns="http://www.w3.org/2000/svg">{body}</svg>'
    )


def _interval_text(item: Mapping[str, Any]) -> str:
    return f"{100 * item['value']:.1f} ({100 * item['low']:.1f} to {100 * item['high']:.1f})"
