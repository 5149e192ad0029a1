"""Where a report comes from: commit, data, version and verdicts, for the copy of it that MLflow keeps.

The page that the stage writes depends on its inputs alone, so that equal inputs give equal bytes. Who made
it, at which commit, and what was registered is known only when a run ends, and goes into the run's own copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from erv.errors import EvaluationError

MARK = "<!-- origin -->"  # where the page has room for it


@dataclass(frozen=True)
class Fact:
    """A line of the origin: `commit`, `3f2a9c1`, and an address if there is one."""

    name: str
    text: str
    link: str | None = None


def with_origin(page: str, facts: Sequence[Fact]) -> str:
    """The page with a table of its origin.

    Args:
        page: HTML as the stage `report` writes it.
        facts: the lines, in their order; what they say becomes text, never markup.

    Raises:
        EvaluationError: the page has no room for it, so it isn't the stage's.
    """
    if page.count(MARK) != 1:
        raise EvaluationError(
            f"the report has no place for its origin ({MARK}); run `dvc repro report` again"
        )
    from erv.report.page import templates

    return page.replace(MARK, templates().get_template("origin.html.j2").render(facts=facts))
