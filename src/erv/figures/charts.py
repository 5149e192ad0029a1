"""Charts of a data set as inline SVG and HTML, from the tables that `erv.figures.tables` writes.

Colours come from the page's style sheet (classes `train`, `validation`, `test`), so that charts follow light
and dark; `STYLE` is what they need on a page of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from markupsafe import Markup

from erv.manifest import SPLITS

Rows = Sequence[Mapping[str, str]]

STYLE = """
:root { color-scheme: light dark; --ink:#1b1d22; --soft:#5c6370; --paper:#fbfbfa; --line:#e4e4e0;
  --train:#2f7f86; --validation:#8a94a6; --test:#d99a3d; }
@media (prefers-color-scheme: dark) { :root { --ink:#e9e9e6; --soft:#a0a6b1; --paper:#15171b; --line:#31353c;
  --train:#4fb0b6; --validation:#8f9aad; --test:#e0a951; } }
body { margin:0; padding:1rem; background:var(--paper); color:var(--ink);
  font:15px/1.5 system-ui,sans-serif; }
h1 { font-size:1.2rem; } .soft { color:var(--soft); }
svg { width:100%; max-width:860px; height:auto; display:block; font:12px system-ui,sans-serif; }
svg .grid { stroke:var(--line); } svg .label { fill:var(--ink); } svg .tick { fill:var(--soft); }
svg .train { fill:var(--train); } svg .validation { fill:var(--validation); } svg .test { fill:var(--test); }
table { border-collapse:collapse; } td, th { text-align:left; padding:.25rem .6rem; vertical-align:top; }
.num { text-align:right; font-variant-numeric:tabular-nums; }
.bar { display:block; height:.5rem; border-radius:4px; background:var(--test); min-width:2px;
  margin-top:.45rem; }
.reasons td:nth-child(3) { width:35%; min-width:6rem; }
"""
_LABELS = 118
_ROW = 19


def class_balance_svg(rows: Rows) -> Markup:
    """A column of bars per fold, a bar per label, stacked by split; one scale for all folds."""
    folds = list(dict.fromkeys(row["fold"] for row in rows))
    labels = list(dict.fromkeys(row["label"] for row in rows))
    clips = {(row["fold"], row["split"], row["label"]): int(row["clips"]) for row in rows}
    totals = {
        (fold, label): sum(clips.get((fold, split, label), 0) for split in SPLITS)
        for fold in folds
        for label in labels
    }
    left = max([_LABELS, *(7 * len(label) for label in labels)]) if labels else _LABELS
    column = 92 if len(folds) > 1 else 340
    scale = (column - 44) / max([1, *totals.values()])
    width, top = left + max(1, len(folds)) * column, 40
    parts = [_legend(left)]
    for f, fold in enumerate(folds):
        x0 = left + f * column
        parts.append(
            f'<line class="grid" x1="{x0}" x2="{x0}" y1="{top - 4}" y2="{top + _ROW * len(labels)}"/>'
        )
        name = f"fold {fold}" if fold != "0" else "all"
        parts.append(f'<text class="tick" x="{x0 + 2}" y="{top - 8}">{escape(name)}</text>')
    for i, label in enumerate(labels):
        y = top + i * _ROW
        parts.append(
            f'<text class="label" x="{left - 8}" y="{y + 13}" text-anchor="end">{escape(label)}</text>'
        )
        for f, fold in enumerate(folds):
            x = left + f * column + 1.0
            for split in SPLITS:
                count = clips.get((fold, split, label), 0)
                if count:
                    title = escape(f"fold {fold}, {split}, {label}: {count}")
                    parts.append(
                        f'<rect class="{split}" x="{x:.1f}" y="{y + 3}" width="{count * scale:.1f}"'
                        f' height="13"><title>{title}</title></rect>'
                    )
                    x += count * scale
            parts.append(f'<text class="tick" x="{x + 4:.1f}" y="{y + 13}">{totals[fold, label]}</text>')
    return _svg(parts, width, top + _ROW * len(labels) + 6, "Clips per label, split and fold")


def durations_svg(rows: Rows) -> Markup:
    """A histogram of seconds."""
    left, top, height, plot = 44, 14, 130, 460
    bins = [(float(row["seconds"]), int(row["clips"])) for row in rows]
    if not bins:
        parts = ['<text class="tick" x="4" y="20">no clip tells its length</text>']
        return _svg(parts, left + plot, 30, "Durations")
    most, step = max(count for _, count in bins), bins[1][0] - bins[0][0] if len(bins) > 1 else 0.5
    bar = plot / len(bins)
    parts = []
    for tick in (0, most):
        y = top + height * (1 - tick / most)
        parts.append(f'<line class="grid" x1="{left}" x2="{left + plot}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{tick}</text>')
    apart = next((n for n in (1, 2, 5, 10, 20, 60) if len(bins) * step / n <= 10), 600)
    for i, (seconds, count) in enumerate(bins):
        # One clip among thousands is to be seen as well.
        x, tall = left + i * bar, max(1.5, height * count / most) if count else 0.0
        if count:
            parts.append(
                f'<rect class="train" x="{x + 0.5:.1f}" y="{top + height - tall:.1f}"'
                f' width="{max(1, bar - 1):.1f}" height="{tall:.1f}">'
                f"<title>{seconds:g} to {seconds + step:g} s: {count} clips</title></rect>"
            )
        if seconds % apart == 0:
            parts.append(f'<text class="tick" x="{x:.1f}" y="{top + height + 16}">{seconds:g}</text>')
    parts.append(
        f'<text class="tick" x="{left + plot}" y="{top + height + 32}" text-anchor="end">seconds</text>'
    )
    return _svg(parts, left + plot + 16, top + height + 38, "Clips per duration in seconds")


def quarantine_table(rows: Rows) -> Markup:
    """A line per stage and reason with a bar; the most frequent first."""
    if not rows:
        return Markup('<p class="soft">No clip is in quarantine.</p>')
    most = max(int(row["clips"]) for row in rows)
    lines = [
        f'<tr><td class="num">{int(row["clips"])}</td><td>{escape(row["reason"])} '
        f'<span class="soft">({escape(row["stage"])})</span></td>'
        f'<td><span class="bar" style="width:{100 * int(row["clips"]) / most:.1f}%"></span></td></tr>'
        for row in rows
    ]
    # Texts are escaped above.
    return Markup(f'<table class="reasons">{"".join(lines)}</table>')  # noqa: S704


def page(title: str, body: Markup) -> str:
    """A page that needs nothing else."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><h1>{escape(title)}</h1>{body}</body></html>\n"
    )


def _legend(left: int) -> str:
    parts = []
    for split, offset in zip(SPLITS, (0, 60, 146), strict=True):
        x = left + offset
        parts.append(f'<rect class="{split}" x="{x}" y="3" width="10" height="10"/>')
        parts.append(f'<text class="tick" x="{x + 15}" y="12">{split}</text>')
    return "".join(parts)


def _svg(parts: Sequence[str], width: int, height: float, title: str) -> Markup:
    # Texts in `parts` are escaped above, numbers are formatted ones.
    return Markup(  # noqa: S704
        f'<svg viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{escape(title)}"'
        f' xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )
