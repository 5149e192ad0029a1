"""The figures of a data set as self-contained pages, for the MLflow run of the stage that made them."""

from __future__ import annotations

from html import escape
from pathlib import Path

from markupsafe import Markup

from erv.figures.charts import Rows, class_balance_svg, durations_svg
from erv.figures.drawing import stylesheet
from erv.plots.tables import read_plot

_STYLE = """
body { margin:0; padding:1rem; background:Canvas; color:var(--ink); font:15px/1.5 system-ui,sans-serif; }
h1 { font-size:1.2rem; } .soft { color:var(--soft); }
svg { width:100%; max-width:860px; height:auto; display:block; }
table { border-collapse:collapse; } td, th { text-align:left; padding:.25rem .6rem; vertical-align:top; }
.num { text-align:right; font-variant-numeric:tabular-nums; }
.bar { display:block; height:.5rem; border-radius:4px; background:var(--p1); min-width:2px;
  margin-top:.45rem; }
.reasons td:nth-child(3) { width:35%; min-width:6rem; }
"""


def class_balance_page(path: Path) -> str:
    """The HTML page for `data/plots/NAME/class_balance.csv`."""
    name = path.parent.name
    return _page(f"{name}: clips per label", class_balance_svg(read_plot(path), name))


def durations_page(path: Path) -> str:
    """The HTML page for `data/plots/NAME/durations.csv`."""
    name = path.parent.name
    return _page(f"{name}: clips per duration", durations_svg(read_plot(path), name))


def quarantine_page(path: Path) -> str:
    """The HTML page for `data/plots/NAME/quarantine.csv`."""
    return _page(f"{path.parent.name}: quarantine by reason", quarantine_table(read_plot(path)))


def quarantine_table(rows: Rows) -> Markup:
    """One line with a bar per stage and reason, most frequent first."""
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


def _page(title: str, body: Markup) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{stylesheet()}{_STYLE}</style></head>"
        f"<body><h1>{escape(title)}</h1>{body}</body></html>\n"
    )
