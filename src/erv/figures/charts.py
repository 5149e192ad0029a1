"""Charts of a data set, from the tables that `erv.plots.tables` writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from erv.figures.drawing import COLOURS, draw, note
from erv.manifest import SPLITS

Rows = Sequence[Mapping[str, str]]

_SPLIT_COLOURS = dict(zip(SPLITS, (COLOURS["p2"], COLOURS["p0"], COLOURS["p1"]), strict=True))


def class_balance_svg(rows: Rows, name: str) -> Markup:
    """One column of bars per fold and one bar per label, stacked by split; all folds share one scale.

    Args:
        rows: rows of `class_balance.csv`.
        name: name of the data set.
    """
    if not rows:
        return Markup('<p class="soft">No clip is listed.</p>')
    folds = list(dict.fromkeys(row["fold"] for row in rows))
    labels = list(dict.fromkeys(row["label"] for row in rows))
    clips = {(row["fold"], row["split"], row["label"]): int(row["clips"]) for row in rows}

    def counts(fold: str, split: str) -> list[int]:
        return [clips.get((fold, split, label), 0) for label in labels]

    def paint(figure: Any) -> None:
        columns = figure.subplots(1, len(folds), sharex=True, sharey=True, squeeze=False)[0]
        for axes, fold in zip(columns, folds, strict=True):
            ends = [0] * len(labels)
            for split, colour in _SPLIT_COLOURS.items():
                bars = axes.barh(labels, counts(fold, split), 0.68, left=ends, color=colour, label=split)
                for bar, label, count in zip(bars, labels, counts(fold, split), strict=True):
                    note(bar, f"fold {fold}, {split}, {label}: {count}")
                    if not count:
                        bar.remove()
                ends = [end + count for end, count in zip(ends, counts(fold, split), strict=True)]
            for place, end in enumerate(ends):
                axes.annotate(
                    str(end),
                    (end, place),
                    (4, 0),
                    textcoords="offset points",
                    va="center",
                    color=COLOURS["soft"],
                )
            axes.set_title(_fold_name(fold))
            axes.axvline(0, color=COLOURS["line"], linewidth=1)
            axes.xaxis.set_visible(False)
            axes.tick_params(axis="y", labelcolor=COLOURS["ink"])
        columns[0].margins(x=0.25)
        columns[0].set_ylim(len(labels) - 0.5, -0.5)
        legend = columns[0].get_legend_handles_labels()
        figure.legend(*legend, loc="outside upper left", ncols=len(SPLITS))

    totals = [
        f"{_fold_name(fold)}: " + ", ".join(f"{split} {sum(counts(fold, split))}" for split in SPLITS)
        for fold in folds
    ]
    names_width = max(118, *(7 * len(label) for label in labels))
    return draw(
        paint,
        size=(names_width + (92 if len(folds) > 1 else 340) * len(folds), 62 + 19 * len(labels)),
        title=f"{name}: clips per label, split and fold",
        description="; ".join(totals),
    )


def durations_svg(rows: Rows, name: str) -> Markup:
    """A histogram of clip lengths in seconds.

    Args:
        rows: rows of `durations.csv`.
        name: name of the data set.
    """
    if not rows:
        return Markup('<p class="soft">No clip has a known length.</p>')
    starts, counts = [float(row["seconds"]) for row in rows], [int(row["clips"]) for row in rows]
    width = starts[1] - starts[0] if len(rows) > 1 else 0.5
    most = max(counts)
    apart = next((n for n in (width, 1, 2, 5, 10, 20, 60) if len(rows) * width / n <= 10), 600)

    def paint(figure: Any) -> None:
        from matplotlib.ticker import MultipleLocator

        axes = figure.subplots()
        # Even one clip among thousands must be visible.
        heights = [max(count, 0.012 * most) if count else 0 for count in counts]
        bars = axes.bar(starts, heights, 0.92 * width, align="edge", color=COLOURS["p2"])
        for bar, start, count in zip(bars, starts, counts, strict=True):
            note(bar, f"{start:g} to {start + width:g} s: {count} clips")
            if not count:
                bar.remove()
        axes.set_xlim(starts[0], starts[-1] + width)
        axes.xaxis.set_major_locator(MultipleLocator(apart))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_yticks([0, most])
        axes.grid(axis="y")
        axes.set_xlabel("seconds")

    fullest = starts[counts.index(most)]
    return draw(
        paint,
        size=(520, 190),
        title=f"{name}: clips per duration in seconds",
        description=f"{sum(counts)} clips of {starts[0]:g} to {starts[-1] + width:g} s;"
        f" most of them, {most}, from {fullest:g} to {fullest + width:g} s",
    )


def _fold_name(fold: str) -> str:
    return f"fold {fold}" if fold != "0" else "all"
