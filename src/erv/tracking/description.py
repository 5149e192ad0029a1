"""What tells one run of the pipeline from another: its name, its parameters, and what changed since others.

It is compared with the last finished run of whoever started it, or of anybody if that is their first, and
with the run that made the champion. Runs that contain others
are marked with the tag `erv.kind`: `flow` for a run of the train flow, `experiment` for an experiment of DVC,
`sweep` for a sweep and `trial` for one of its trials. The latter two are nobody's last run.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from erv.environment import Environment
from erv.parameters import PARAMETERS, Change, as_texts, changes, decides, parse
from erv.tracking import lock_entries
from erv.tracking.origin import STARTED_BY_TAG, who
from erv.tracking.rest import Run

logger = logging.getLogger(__name__)

KIND_TAG, FLOW, EXPERIMENT = "erv.kind", "flow", "experiment"
SWEEP, TRIAL = "sweep", "trial"
PARENT_RUN_TAG = "erv.parent_run"  # of a registered version: the run that contains what made it
PUBLISH_RUN_TAG = "erv.publish_run"  # of a registered version: the run that published it
NOTE_TAG = "mlflow.note.content"  # MLflow shows it as the run's description
CHANGED_TAG = "erv.changed."  # since `last`, or since `champion`
LAST, CHAMPION = "last", "champion"

SEED, FOLD = "seed", "ingest.fold"
_NAMED_CHANGES = 3
REFERENCES = {LAST: "since the last run", CHAMPION: "against the champion's run"}


@dataclass(frozen=True)
class Reference:
    """An earlier run, and where the parameters differ from it.

    Attributes:
        kind: `last` or `champion`.
        run: the run.
        changed: parameters that differ; None if the run recorded none.
    """

    kind: str
    run: Run
    changed: list[Change] | None

    def title(self, also: Sequence[str] = ()) -> str:
        """`since the last run of Ann Lee (ann@box)`: what it is, and whose.

        Args:
            also: other kinds of reference that this run is, too.
        """
        by = self.run.data.tags.get(STARTED_BY_TAG)
        whose = {LAST: f" of {by}" if by else ""}
        return " and ".join(REFERENCES[kind] + whose.get(kind, "") for kind in (self.kind, *also))


@dataclass(frozen=True)
class Description:
    """How a run is shown: its name, and what is logged to it when it is opened."""

    name: str
    parameters: dict[str, str]
    tags: dict[str, str]
    references: tuple[Reference, ...] = ()


def describe(
    environment: Environment,
    parameters: Mapping[str, Any],
    *,
    candidate: str,
    model: str,
    targets: Sequence[str] | None = (),
    started_by: str | None = None,
) -> Description:
    """Describes a run that is about to start. If MLflow can't be asked, it is compared with nothing.

    Args:
        environment: where MLflow is.
        parameters: all of `params.yaml`, by dotted name.
        candidate: the policy that is registered, `erv`.
        model: name of the registered model, whose champion the run is compared with.
        targets: the stages that were asked for; empty for all, None if that isn't known.
        started_by: who started it; who runs this process by default.
    """
    texts = {name: environment.mask(text) for name, text in as_texts(parameters).items()}
    by = started_by or who(environment.workspace)
    references = _references(environment, model, texts, by)
    tags = {
        "erv.candidate": candidate,
        "erv.fold": texts.get(FOLD, ""),
        "erv.seed": texts.get(SEED, ""),
        STARTED_BY_TAG: by,
        NOTE_TAG: note(references),
    }
    if targets is not None:
        tags["erv.targets"] = " ".join(targets) or "all"
    for reference in references:
        if reference.changed is not None:
            text = "; ".join(change.text() for change in reference.changed) or "nothing"
            tags[f"{CHANGED_TAG}{reference.kind}"] = text[: lock_entries.TAG_LIMIT]
    return Description(
        speaking_name(targets or [candidate], references, texts), texts, tags, tuple(references)
    )


def speaking_name(subjects: Sequence[str], references: Sequence[Reference], texts: Mapping[str, str]) -> str:
    """`erv · explanation 0.5 · fold 1`: what is made, what differs from the champion or else the last run."""
    known = {r.kind: r.changed for r in references if r.changed is not None}
    changed = known.get(CHAMPION, known.get(LAST, []))
    named = [change for change in changed if decides(change.name) and change.name != FOLD]
    parts = [f"{_short(change.name, named)} {change.now}" for change in named[:_NAMED_CHANGES]]
    if len(named) > _NAMED_CHANGES:
        parts.append(f"{len(named) - _NAMED_CHANGES} more")
    if FOLD in texts:
        parts.append(f"fold {texts[FOLD]}")
    return " · ".join([", ".join(subjects), *parts])[:250]


def note(references: Sequence[Reference]) -> str:
    """The run's description in Markdown: a table of what differs, per run that it is compared with."""
    if not references:
        return "Compared with no earlier run: there was none, or MLflow could not be asked when it started.\n"
    return "\n".join(_section(reference) for reference in references)


def _section(reference: Reference) -> str:
    info = reference.run.info
    title = f"Parameters {reference.title()}, {info.run_name} (`{info.run_id[:8]}`)"
    if reference.changed is None:
        return f"{title}: unknown, it recorded none.\n"
    if not reference.changed:
        return f"{title}: the same.\n"
    rows = [f"| {_cell(c.name)} | {_cell(c.before)} | {_cell(c.now)} |" for c in reference.changed]
    return "\n".join([f"{title}:", "", "| parameter | there | here |", "|---|---|---|", *rows, ""])


def _cell(text: str) -> str:
    return (text if len(text) <= 80 else f"{text[:79]}…").replace("|", "\\|").replace("\n", " ")


def _short(name: str, among: Sequence[Change]) -> str:
    """The end of a name that no other of these has: `explanation`, or `sft.epochs` beside `grpo.epochs`."""
    parts = name.split(".")
    for start in range(len(parts) - 1, -1, -1):
        end = ".".join(parts[start:])
        if sum(change.name == end or change.name.endswith(f".{end}") for change in among) == 1:
            return end
    return name


def _references(environment: Environment, model: str, texts: Mapping[str, str], by: str) -> list[Reference]:
    if environment.mlflow_uri is None:
        return []
    try:
        found = {CHAMPION: champion_run(environment, model), LAST: last_run(environment, by)}
        parameters = {kind: _parameters(environment, run) for kind, run in found.items() if run is not None}
    except OSError as error:
        logger.warning("MLflow can't say what changed since earlier runs: %s", error)
        return []
    return [
        Reference(kind, run, changes(before, texts) if (before := parameters[kind]) else None)
        for kind, run in found.items()
        if run is not None
    ]


def last_run(environment: Environment, by: str) -> Run | None:
    """The newest finished run of a flow or of an experiment that a person started, or else that anybody did.

    Args:
        environment: where MLflow is.
        by: the person, from `erv.tracking.origin.who`.

    Raises:
        OSError: MLflow can't be reached, or refuses.
    """
    quoted = by.replace('"', "")  # MLflow knows no other way to quote an apostrophe
    return _newest(environment, f' and tags.`{STARTED_BY_TAG}` = "{quoted}"') or _newest(environment)


def _newest(environment: Environment, condition: str = "") -> Run | None:
    found = [
        run
        for kind in (FLOW, EXPERIMENT)
        for run in lock_entries.search(
            environment,
            f"tags.`{KIND_TAG}` = '{kind}' and attributes.status = 'FINISHED'{condition}",
            limit=1,
        )
    ]
    return max(found, key=lambda run: run.info.start_time, default=None)


def champion_run(environment: Environment, model: str) -> Run | None:
    """The run that contains what made the champion, or else the one that published it.

    None without a champion, or if its run is gone.

    Raises:
        OSError: MLflow can't be reached, or refuses.
    """
    server = lock_entries.server_of(environment)
    tags = server.version_tags(model, "champion")
    named = [tags[tag] for tag in (PARENT_RUN_TAG, PUBLISH_RUN_TAG) if tag in tags] if tags else []
    return next((run for run_id in named if (run := server.find_run(run_id)) is not None), None)


def _parameters(environment: Environment, run: Run) -> Mapping[str, str]:
    """The parameters of a run; those of a publication without a flow are in a file. Empty if it has none.

    Raises:
        OSError: MLflow can't be reached, or refuses.
    """
    path = f"{lock_entries.LOCK_ARTIFACT_FOLDER}/{PARAMETERS}"
    server, run_id = lock_entries.server_of(environment), run.info.run_id
    if run.data.params or path not in server.list_artifacts(run_id, lock_entries.LOCK_ARTIFACT_FOLDER):
        return run.data.params
    stored = as_texts(parse(server.read_artifact(run_id, path)))
    return {name: environment.mask(text) for name, text in stored.items()}
