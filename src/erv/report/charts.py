"""The report's charts: the policies, their differences, and the quality of the verifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from colorsys import hls_to_rgb
from typing import Any

from markupsafe import Markup

from erv.evaluate.intervals import undefined
from erv.evaluate.significance import BETTER, WORSE
from erv.figures.drawing import COLOURS, draw, note
from erv.report.names import HUES
from erv.report.verdicts import NOT_APPLICABLE

_POLICIES = [COLOURS[f"p{i}"] for i in range(5)]
_PERCENT = [0, 25, 50, 75, 100]
# Narrow drawings keep their text readable on a phone; the page limits how far they grow.
_WIDTH = 520
_SQUARE = (300, 356)


def bar_chart(
    values: Mapping[str, Mapping[str, Mapping[str, float]]], metrics: Sequence[str], names: Mapping[str, str]
) -> Markup:
    """Grouped bars with intervals: one group per metric, one bar per policy, from 0 to 100 percent.

    What is not defined or doesn't apply has a dash instead of a bar, since a bar of 0 would be a figure.

    Args:
        values: policy -> metric -> value, low, high as shares.
        metrics: the groups, in order.
        names: display name of each policy.
    """
    width = 0.78 / max(1, len(values))

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        for i, (policy, by_metric) in enumerate(values.items()):
            colour = _POLICIES[i % len(_POLICIES)]
            place_of = {m: at + (i - (len(values) - 1) / 2) * width for at, m in enumerate(metrics)}
            shown = [metric for metric in metrics if _known(by_metric.get(metric, undefined()))]
            places = [place_of[metric] for metric in shown]
            value, low, high = (
                [100 * by_metric[metric][end] for metric in shown] for end in ("value", "low", "high")
            )
            bars = axes.bar(places, value, 0.92 * width, color=colour)
            axes.vlines(places, low, high, color=COLOURS["ink"], linewidth=1.3, alpha=0.75)
            for bar, metric in zip(bars, shown, strict=True):
                note(bar, f"{names[policy]}, {metric}: {_interval(by_metric[metric])}")
            for metric in [metric for metric in metrics if metric not in shown]:
                mark = axes.text(place_of[metric], 1, "-", color=colour, ha="center", weight="bold", size=16)
                note(mark, f"{names[policy]}, {metric}: {_lacking(by_metric, metric)}")
        edge = ((len(values) - 1) / 2 + 0.46) * width  # room for all bars, also those that are left out
        axes.update_datalim([(-edge, 0), (len(metrics) - 1 + edge, 0)])
        axes.set_xticks(range(len(metrics)), metrics, color=COLOURS["ink"])
        axes.set_yticks(_PERCENT)
        axes.set_ylim(0, 100)
        axes.margins(x=0.02)
        axes.grid(axis="y")

    return draw(
        paint,
        size=(_WIDTH, 230),
        title="Metrics of the policies in percent, with intervals",
        description=". ".join(
            f"{names[policy]}: {_list(by_metric, metrics)}" for policy, by_metric in values.items()
        ),
    )


def has_gaps(values: Mapping[str, Mapping[str, Mapping[str, Any]]], metrics: Sequence[str]) -> bool:
    """Whether `bar_chart` leaves a bar out; see there for what is given."""
    return any(not _known(items.get(metric, undefined())) for items in values.values() for metric in metrics)


def difference_chart(
    values: Mapping[str, Mapping[str, float]], title: str, words: Mapping[str, str]
) -> Markup:
    """One point with its interval per metric, in percentage points around zero.

    Args:
        values: metric -> value, low, high as shares.
        title: what is compared with what.
        words: metric -> verdict, which decides the colour.
    """
    colours = {BETTER: COLOURS["good"], WORSE: COLOURS["bad"]}
    drawn = [(place, metric, item) for place, (metric, item) in enumerate(values.items()) if _known(item)]
    reach = 108 * max(0.05, *(abs(item[end]) for _, _, item in drawn for end in ("low", "high")), 0.0)

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        axes.axvline(0, color=COLOURS["soft"], linewidth=1, linestyle=(0, (3, 4)))
        for place, metric, item in drawn:
            colour = colours.get(words[metric], COLOURS["p0"])
            axes.hlines(place, 100 * item["low"], 100 * item["high"], color=colour, linewidth=4, alpha=0.55)
            axes.scatter(100 * item["value"], place, s=144, color=colour, linewidth=0)
        axes.set_xlim(-reach, reach)
        axes.xaxis.set_visible(False)
        axes.set_yticks(range(len(values)), values, color=COLOURS["ink"])
        axes.set_ylim(len(values) - 0.5, -0.5)
        right = axes.twinx()
        right.set_ylim(axes.get_ylim())
        said = [_said(item, words[metric]) for metric, item in values.items()]
        right.set_yticks(range(len(values)), said)

    return draw(
        paint,
        size=(430, 10 + 28 * len(values)),
        title=title,
        description="Percentage points: "
        + ", ".join(_described(metric, item, words[metric]) for metric, item in values.items()),
    )


def precision_recall_chart(per_label: Mapping[str, Mapping[str, Any]]) -> Markup:
    """Precision (vertical) against recall (horizontal), with one curve per label that occurs.

    Args:
        per_label: `per_label` of `erv.train_erv.scores.classification_report`.
    """
    drawn = {label: row for label, row in per_label.items() if row["curve"] is not None}

    def paint(figure: Any) -> None:
        axes = _square(figure, "recall", "precision")
        for label, row in drawn.items():
            across, up = ([100 * share for share in row["curve"][key]] for key in ("recall", "precision"))
            hue = HUES.get(label)
            colour = COLOURS["soft"] if hue is None else hls_to_rgb(hue / 360, 0.5, 0.6)
            (line,) = axes.plot(across, up, color=colour, linewidth=1.8, alpha=0.85, label=label)
            average = 100 * row["average_precision"]
            note(line, f"{label}: average precision {average:.1f}, {row['support']} texts")
        legend = axes.get_legend_handles_labels()
        figure.legend(*legend, loc="outside lower center", ncols=3, fontsize=10, columnspacing=1)

    averages = ", ".join(f"{label} {100 * row['average_precision']:.1f}" for label, row in drawn.items())
    return draw(
        paint,
        size=_SQUARE,
        title="Precision against recall of each emotion",
        description=f"Average precision in percent: {averages}",
    )


def reliability_chart(bins: Sequence[Mapping[str, float]]) -> Markup:
    """How often a label is true (vertical) at a predicted probability (horizontal); the diagonal is ideal.

    Args:
        bins: bins from `erv.train_erv.scores.reliability`.
    """
    most = max((row["decisions"] for row in bins), default=1)
    notes = [
        f"{row['decisions']:.0f} decisions: probability {row['probability']:.2f}, true {row['frequency']:.2f}"
        for row in bins
    ]

    def paint(figure: Any) -> None:
        axes = _square(figure, "probability", "true")
        axes.plot([0, 100], [0, 100], color=COLOURS["soft"], linewidth=1, linestyle=(0, (3, 4)))
        for row, text in zip(bins, notes, strict=True):
            radius = 2.5 + 6.0 * (row["decisions"] / most) ** 0.5
            place = 100 * row["probability"], 100 * row["frequency"]
            note(axes.scatter(*place, s=(2 * radius) ** 2, color=COLOURS["p0"], linewidth=0), text)

    return draw(
        paint,
        size=(_SQUARE[0], 290),
        title="Probability against frequency",
        description="; ".join(notes),
    )


def _square(figure: Any, across: str, up: str) -> Any:
    """Square axes, percent against percent."""
    axes = figure.subplots()
    axes.set(xlabel=across, ylabel=up, xlim=(0, 100), ylim=(0, 100), xticks=_PERCENT, yticks=_PERCENT)
    axes.set_aspect("equal")
    axes.grid(axis="y")
    return axes


def percent(value: float | None, digits: int = 1, *, sign: str = "") -> str:
    """A share in percent; a dash where it is not defined."""
    return "–" if value is None else f"{100 * value:{sign}.{digits}f}"


def _list(values: Mapping[str, Mapping[str, float]], metrics: Sequence[str], sign: str = "") -> str:
    return ", ".join(
        f"{metric} {_interval(values[metric], sign)}"
        if _known(values.get(metric, undefined()))
        else f"{metric} {_lacking(values, metric)}"
        for metric in metrics
    )


def _lacking(values: Mapping[str, Any], metric: str) -> str:
    """Why a policy has no figure."""
    return "not defined" if metric in values else NOT_APPLICABLE


def _known(item: Mapping[str, float | None]) -> bool:
    return None not in (item["value"], item["low"], item["high"])


def _said(item: Mapping[str, float], word: str) -> str:
    """A difference with its interval."""
    return word if word == NOT_APPLICABLE else _interval(item, "+")


def _described(metric: str, item: Mapping[str, float], word: str) -> str:
    return f"{metric} {word}" if word == NOT_APPLICABLE else f"{metric} {_interval(item, '+')}, {word}"


def _interval(item: Mapping[str, float], sign: str = "") -> str:
    value, low, high = (percent(item[end], sign=sign) for end in ("value", "low", "high"))
    return f"{value} ({low} to {high})"
