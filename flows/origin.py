"""What the report in MLflow says of its origin: commit, data, version, verdicts and where to look."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from prefect.context import FlowRunContext

from erv.environment import Environment
from erv.errors import EvaluationError
from erv.report.origin import Fact, with_origin
from erv.settings import Settings
from erv.sources.lock import LOCKS
from erv.tracking.origin import COMMIT_TAG, DIRTY_TAG, committed_on, who
from flows.summary import REPORT

if TYPE_CHECKING:
    from erv.register.publish import PublishResult

    Log = logging.Logger | logging.LoggerAdapter[Any]


def started_by() -> str | None:
    """Who started the flow run, as Prefect knows it; None if Prefect doesn't."""
    context = FlowRunContext.get()
    started = context.flow_run.created_by if context is not None and context.flow_run is not None else None
    return started.display_value if started is not None else None


def report_with_origin(
    environment: Environment,
    settings: Settings,
    published: PublishResult | None,
    addresses: Mapping[str, str],
    started: Mapping[str, str],
    logger: Log,
) -> str:
    """The page that the stage `report` wrote, with its origin.

    A page from before there was room for it, which `erv accept` has kept, stays as it is: by now the version
    is registered, and nothing is wrong with it.

    Args:
        environment: of the run.
        settings: its parameters.
        published: the version, if one was published.
        addresses: where to look, by name, as in the summary.
        started: tags of the run's start, from `erv.tracking.origin.origin_tags`; HEAD may have moved since.
        logger: takes a warning if the page has no room for its origin.
    """
    facts = [
        *_code(environment, started),
        Fact("seed", str(settings.seed)),
        *_data(environment, settings),
        *_version(published),
        *(Fact(name, url, url) for name, url in addresses.items() if url.startswith(("http://", "https://"))),
    ]
    page = REPORT.read_text(encoding="utf-8")
    try:
        return with_origin(page, facts)
    except EvaluationError as error:
        logger.warning("MLflow's copy of the report doesn't say where it comes from: %s", error)
        return page


def _code(environment: Environment, tags: Mapping[str, str]) -> Iterator[Fact]:
    yield Fact("made", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC by {who(environment.workspace)}")
    changes = ", with uncommitted changes" if tags.get(DIRTY_TAG) == "true" else ""
    yield Fact("commit", f"{tags[COMMIT_TAG]}{changes}" if COMMIT_TAG in tags else "not in a git repository")


def _data(environment: Environment, settings: Settings) -> Iterator[Fact]:
    for name in settings.datasets:
        day = committed_on(environment.workspace, LOCKS / f"{name}.lock.json")
        yield Fact(f"data {name}", f"as pinned on {day}" if day else "as pinned here, not in git as it is")


def _version(published: PublishResult | None) -> Iterator[Fact]:
    if published is None:
        yield Fact("version", "none was registered")
        return
    aliases = f" ({', '.join(published.aliases)})" if published.aliases else ""
    yield Fact("version", f"{published.name} {published.version}{aliases}")
    for verdict in published.verdicts:
        yield Fact("gate", verdict.text())
