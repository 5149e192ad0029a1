"""Data Docs of a validation as one page: Great Expectations' own rendering, without external resources.

The site that Great Expectations builds is a tree of pages with relative links, and loads styles and scripts
from eight hosts. MLflow shows a single artifact in a frame, often without network access. So its sections get
our own style sheet and go on one page below the verdict.
"""

from __future__ import annotations

import copy
import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from erv.files import write_text

_SHOWN = 20  # clips or values per expectation; the verdict has more


def write_data_docs(verdict: Mapping[str, Any], checks: Mapping[str, Any], result: Any, path: Path) -> None:
    """Writes the page.

    Args:
        verdict: of `erv.validate.validate.validate`.
        checks: the checks of ingest, for those that failed.
        result: Great Expectations' result of the suite.
        path: the HTML file.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("erv.validate"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("data_docs.html.j2").render(
        verdict=verdict,
        shown=_SHOWN,
        checks=[check for check in checks.get("checks", ()) if not check["success"]],
        # Values are escaped below; the rest comes from Great Expectations' templates.
        sections=[Markup(section) for section in _sections(result)],  # noqa: S704
    )
    write_text(page, path)


def _sections(result: Any) -> list[str]:
    """Great Expectations' sections per column as HTML, without the run's times."""
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaSectionView

    document = ValidationResultsPageRenderer(run_info_at_end=True).render(_escaped(result)).to_json_dict()
    # The first section repeats the verdict, the last one contains times.
    wanted = [
        item for item in document["sections"] if item.get("section_name") not in ("Overview", "Run Info")
    ]
    view = DefaultJinjaSectionView()
    return [view.render({"section": item, "section_loop": {"index": i}}) for i, item in enumerate(wanted, 1)]


def _escaped(result: Any) -> Any:
    """A copy in which the observed values of clips are escaped text, and few."""
    safe = copy.deepcopy(result)
    for item in safe.results:
        found = item.result
        for name, values in found.items():
            if name.startswith(("partial_", "unexpected_")) and isinstance(values, list):
                found[name] = values[:_SHOWN]
        for name in ("partial_unexpected_list", "unexpected_list"):
            if name in found:
                found[name] = [_text(value) for value in found[name]]
        for count in found.get("partial_unexpected_counts") or ():
            if "value" in count:
                count["value"] = _text(count["value"])
        if isinstance(found.get("observed_value"), list):
            found["observed_value"] = [_text(value) for value in found["observed_value"]]
    return safe


def _text(value: Any) -> Any:
    return html.escape(value) if isinstance(value, str) else value
