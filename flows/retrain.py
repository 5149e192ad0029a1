"""The retrain flow: pins sources that have new data again, and trains on them; without new data it ends.

Its deployment `retrain/scheduled` is registered with a schedule that is off; Prefect's page switches it on. A
lock file that was written anew is an uncommitted change: commit it with the results.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow
from prefect.logging import get_run_logger
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from erv.environment import Environment, isolate, load_environment
from erv.errors import DataError, SettingsError
from erv.files import write_text
from erv.pinning import Repinned, look_again
from erv.settings import Settings, load_settings
from erv.sources import LOCKS, Selection, store_for
from erv.stack.one_origin import check_servers
from erv.tracking.lock_entries import TAG_LIMIT
from flows.cancellation import Cancellation
from flows.form import SourceNames, Workers
from flows.given import Given, applied
from flows.train import MOST_WORKERS, WORKERS, run_pipeline
from flows.wanted import Wanted
from flows.workspace import in_workspace

NEW_DATA_TAG = "erv.new_data"
# What was pinned and no run has finished with: a run that failed would otherwise be the last to know of it.
PENDING = Path(".erv") / "new_data.json"


@flow(
    name="retrain",
    persist_result=False,
    retries=0,
    task_runner=ThreadPoolTaskRunner(max_workers=MOST_WORKERS),  # type: ignore[arg-type]
)
def retrain(sources: SourceNames = (), workers: Workers = WORKERS) -> Any:
    """Looks whether pinned sources have new data; pins them again and runs the pipeline if so, else ends.

    Args:
        sources: names of sources in params.yaml (`mafw`) to look at; all that are pinned by default.
        workers: how many independent stages run in parallel.
    """

    def work(flow_run_id: UUID, cancellation: Cancellation) -> Any:
        environment = load_environment()
        isolate(environment)
        check_servers(environment)
        news = _news(environment, load_settings(environment.workspace / "params.yaml"), sources)
        if not news:
            return Completed(message="no source has new data; nothing was run")
        with applied(environment, Given()) as given:
            given.tags[NEW_DATA_TAG] = "; ".join(news.values())[:TAG_LIMIT]
            summary = run_pipeline(flow_run_id, Wanted(), workers, cancellation, given)
        (environment.workspace / PENDING).unlink(missing_ok=True)
        return summary

    return in_workspace(work)


def _news(environment: Environment, settings: Settings, names: Sequence[str]) -> Mapping[str, str]:
    """What differs since data were last trained on, a sentence per source; their locks are written.

    All sources are read before a lock is written, so that one that can't be read changes nothing.

    Raises:
        SettingsError: there is no such source.
        DataError: it isn't pinned, or can't be read.
        StorageError: the bucket can't be read.
    """
    logger = get_run_logger()
    found = [
        _looked_at(name, uri, settings, environment) for name, uri in _chosen(environment, settings, names)
    ]
    pending = environment.workspace / PENDING
    news: dict[str, str] = json.loads(pending.read_text(encoding="utf-8")) if pending.is_file() else {}
    for sentence in news.values():
        logger.warning("no run has finished with what was pinned earlier: %s", sentence)
    for source in filter(lambda one: one.is_new, found):
        before = news.get(source.lock.name)
        news[source.lock.name] = f"{before}, then {source.text()}" if before else source.text()
    if news:  # first, as whoever is killed in between must not forget it
        write_text(json.dumps(news, ensure_ascii=False, indent=2) + "\n", pending)
    for source in found:
        if source.save():
            logger.info("pinned again: %s; commit %s", source.text(), source.path)
        else:
            logger.info("%s: as pinned", source.lock.name)
    return news


def _chosen(environment: Environment, settings: Settings, names: Sequence[str]) -> Sequence[tuple[str, str]]:
    sources = settings.sources.model_dump()
    if unknown := [name for name in names if name not in sources]:
        raise SettingsError(
            f"source {unknown[0]!r} is not in params.yaml; expected one of {', '.join(sources)}"
        )
    pinned = [name for name in sources if (environment.workspace / LOCKS / f"{name}.lock.json").is_file()]
    chosen = list(names) if names else pinned
    missing = [name for name in chosen if name not in pinned]
    if missing or not chosen:
        what = f"source {missing[0]} is" if missing else "no source is"
        raise DataError(f"{what} pinned, so nothing can be new in it; run `erv data pin`")
    return [(name, str(sources[name])) for name in chosen]


def _looked_at(name: str, uri: str, settings: Settings, environment: Environment) -> Repinned:
    from erv.ingest.readers.by_name import selection_of

    get_run_logger().info("looking at source %s in %s", name, uri)
    reader = settings.ingest.readers.get(name)
    return look_again(
        name,
        uri,
        store_for([uri]),
        selection=selection_of(reader) if reader is not None else Selection(),
        allowed_roots=settings.machine.allowed_roots,
        workspace=environment.workspace,
    )
