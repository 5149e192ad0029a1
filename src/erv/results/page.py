"""The results as one HTML page that needs no network, and as tables for programs: CSV and JSON."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from erv.evaluate.metrics import MEANINGS
from erv.figures.drawing import stylesheet
from erv.files import write_text
from erv.report.charts import percent
from erv.report.names import DATASETS, TITLES
from erv.report.pages import embedded
from erv.results.differences import differing, items_of, shared, unknown
from erv.results.gather import Gathered
from erv.results.items import RECORD_TITLES, in_order, named, title
from erv.results.result import METRICS, NOT_APPLICABLE, NOT_STATED, UNKNOWN, Figure, Result

NAMES = ("by_setting.html", "by_setting.csv", "by_setting.json")
SCHEMA = "erv.figures/1"
_WIDE = ("dataset.frames", "rewards", "libraries", "hardware", "training.hardware")  # not for a terminal
# Only our own script runs, and nothing is fetched from anywhere.
_POLICY = (
    "default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; base-uri 'none';"
    " form-action 'none'"
)


def write(gathered: Gathered, folder: Path) -> list[Path]:
    """Writes page, CSV and JSON; equal results give equal bytes.

    Returns:
        Their paths, the page's first.
    """
    paths = [folder / name for name in NAMES]
    texts = (page(gathered), table(gathered), json.dumps(document(gathered), indent=1, ensure_ascii=False))
    for path, text in zip(paths, texts, strict=True):
        write_text(text if text.endswith("\n") else text + "\n", path)
    return paths


def page(gathered: Gathered) -> str:
    """The page: what all results share, a table of them with what differs, and each with its record."""
    results, own = gathered.results, _own(gathered.results)
    same, untold = shared(own), unknown(own)
    columns = [key for key in differing(own) if named(key)]
    others = [key for key in differing(own) if not named(key)]
    script = (files("erv.results") / "templates" / "by_setting.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    keys = in_order(key for result in results for key in result.setting)
    compared = items_of(results)
    data = {
        "titles": {key: title(key) for key in compared},
        "named": [key for key in compared if named(key)],
        "rows": {
            result.key: {
                "name": _name(result),
                "dataset": DATASETS.get(result.dataset, result.dataset),
                "published": result.published,
                "setting": [result.get(key) for key in compared],
            }
            for result in results
        },
        "keys": compared,
        "silent": [UNKNOWN, NOT_STATED],
        "absent": NOT_APPLICABLE,
    }
    return str(
        _templates()
        .get_template("by_setting.html.j2")
        .render(
            palette=stylesheet(),
            policy=_POLICY.format(digest=digest),
            script=Markup(script),  # noqa: S704 (our own)
            data=Markup(embedded(data)),  # noqa: S704 (see `embedded`)
            results=results,
            own=own,
            remarks=gathered.remarks,
            metrics=METRICS,
            meanings=MEANINGS,
            unknown=[title(key) for key in untold if key not in same and key not in differing(own)],
            untold=untold,
            same={key: text for key, text in same.items() if named(key)},
            same_parameters={key: text for key, text in same.items() if not named(key)},
            columns=columns,
            others=others,
            title=title,
            name=_name,
            datasets=DATASETS,
            record_titles=RECORD_TITLES,
            unlike=[key for key in keys if key not in same or key in untold],
            filters={
                "dataset": sorted({result.dataset for result in results}),
                "fold": sorted({result.get("ingest.fold") for result in own}),
                "policy": sorted({result.policy for result in results}),
            },
        )
    )


def table(gathered: Gathered) -> str:
    """CSV: one row per result, with all items of all settings and records."""
    results = gathered.results
    keys = in_order(key for result in results for key in result.setting)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    ends = [name for metric in METRICS for name in (metric, f"{metric}_low", f"{metric}_high")]
    writer.writerow(
        ["key", "policy", "dataset", "published", "clips", *ends, *keys, *RECORD_TITLES, "remarks"]
    )
    for result in results:
        numbers = [
            "" if value is None else value
            for metric in METRICS
            for value in _ends(result.figures.get(metric, Figure(None)))
        ]
        writer.writerow(
            [
                result.key,
                result.policy,
                result.dataset,
                str(result.published).lower(),
                "" if result.clips is None else result.clips,
                *numbers,
                *(result.get(key) for key in keys),
                *(result.record.get(key, "") for key in RECORD_TITLES),
                " ".join(f"{remark}." for remark in result.remarks),
            ]
        )
    return text.getvalue()


def document(gathered: Gathered) -> dict[str, Any]:
    """JSON, as `schemas/figures.json` describes it."""
    own = _own(gathered.results)
    return {
        "schema": SCHEMA,
        "same": shared(own),
        "differing": differing(own),
        "unknown": unknown(own),
        "results": [result.document() for result in gathered.results],
        "remarks": list(gathered.remarks),
    }


def lines(gathered: Gathered) -> list[str]:
    """For a terminal: the figures, and in what the settings differ."""
    from erv.evaluate.compare import format_table

    own = _own(gathered.results)
    columns = [key for key in differing(own) if named(key) and key not in _WIDE]
    rows = []
    for result in gathered.results:
        figures = {metric: _cell(result.figures.get(metric)) for metric in METRICS}
        count = "-" if result.clips is None else str(result.clips)
        setting = {title(key): result.get(key) for key in columns}
        about = {"key": result.key, "policy": result.policy, "data": result.dataset, "clips": count}
        rows.append({**about, **figures, **setting})
    return [format_table(rows), "in percent, with intervals where they are known"] if rows else []


def _own(results: Sequence[Result]) -> list[Result]:
    return [result for result in results if not result.published]


def _name(result: Result) -> str:
    return TITLES.get(result.policy, result.policy)


def _ends(figure: Figure) -> tuple[float | None, float | None, float | None]:
    return figure.value, figure.low, figure.high


def _cell(figure: Figure | None) -> str:
    if figure is None or figure.value is None:
        return "-"
    if figure.low is None or figure.high is None:
        return percent(figure.value)
    return f"{percent(figure.value)} ({percent(figure.low)} to {percent(figure.high)})"


def _templates() -> Any:
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader("erv.results"), PackageLoader("erv.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    return environment
