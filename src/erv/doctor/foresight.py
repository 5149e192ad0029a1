"""What `erv run` would run and why, how long it would take and what it would cost. Runs and changes nothing.

A stage runs again for changes of its own, or follows one that does, whose outputs may then be other ones. If
they turn out the same, DVC skips what follows, so this is the most that can run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from erv.accept.accept import changed_files, is_code
from erv.accept.contents import Contents
from erv.accept.harmless import HARMLESS
from erv.doctor.foreseen import Foreseen, Foresight, Why
from erv.doctor.pools_ahead import look_at
from erv.environment import Environment, remedy_for
from erv.pipeline import (
    ABSENT,
    ChangedFile,
    PipelineError,
    PipelineStage,
    StageChanges,
    late_inputs,
    named,
    one_stage,
    overlap,
    read_changes,
    read_stages,
    restorable_from_remote,
    select,
)
from erv.remote.commit import CommitError, changes_to_carry, commit_of
from erv.remote.placement import places
from erv.settings import Settings
from erv.stack.reach import unreachable
from erv.tracking.durations import Took, last_times


def foresee(
    environment: Environment,
    settings: Settings,
    targets: Sequence[str] = (),
    *,
    force: bool = False,
    only: str | None = None,
) -> Foresight:
    """What a run of these targets would do.

    Args:
        environment: of the workspace, and where MLflow is.
        settings: of the workspace.
        targets: as `erv run` takes them; none for all.
        force: run the targets, or else all stages, even if nothing changed.
        only: the single stage to run; without targets.

    Raises:
        PipelineError: DVC can't compare the workspace, or a target or what is placed is no stage.
    """
    everything = read_stages(environment.workspace)
    elsewhere = places(everything, settings.machine.placement)
    if only is not None:
        targets = (one_stage(everything, only).name,)
    stages = select(everything, targets)
    forced = named(everything, targets) if force else frozenset()
    changes = read_changes(stages, environment.workspace)
    known = _Known(changes, *_in_remote(environment, stages, changes))
    codes = _Codes(environment.workspace)
    found: dict[str, Foreseen] = {}
    for stage in stages:
        found[stage.name] = (
            _forced(stage) if stage.name in forced else _foreseen(stage, stages, known, found, codes)
        )
    refusal = ""
    if only is not None:
        needed, stages = stages, (one_stage(stages, only),)
        refusal = _refusal(stages[0], needed, found)
    working = [stage.name for stage in stages if found[stage.name].works]
    times, trouble = _times(environment, working, settings.runtime.device)
    items = tuple(_placed(_timed(found[stage.name], times), elsewhere) for stage in stages)
    sent = {item.pool: tuple(one.name for one in items if one.pool == item.pool) for item in items}
    sent.pop("", None)
    held = _held_back(environment, carry=settings.machine.carry_changes) if sent else ""
    return Foresight(
        stages=items,
        seconds=sum(item.seconds or 0.0 for item in items),
        longest_chain=_longest_chain(stages, items),
        unknown=tuple(item.name for item in items if item.works and item.seconds is None),
        price_per_hour=settings.machine.price_per_hour,
        notes=tuple(filter(None, [refusal, held, known.trouble, trouble])),
        fetches=environment.has_storage,
        pools=look_at(environment, sent),
    )


@dataclass(frozen=True)
class _Known:
    """What was asked of DVC.

    Attributes:
        changes: of each stage.
        in_remote: names of the stages that the remote has the results of.
        trouble: why the remote couldn't be asked; empty if it could.
    """

    changes: Mapping[str, StageChanges]
    in_remote: frozenset[str]
    trouble: str


def _in_remote(
    environment: Environment, stages: Sequence[PipelineStage], changes: Mapping[str, StageChanges]
) -> tuple[frozenset[str], str]:
    """The stages whose results are in the remote, and why it couldn't be asked."""
    if not any(change.outputs for change in changes.values()):
        return frozenset(), ""
    # DVC's client would try for minutes.
    endpoint = environment.s3_endpoint
    if endpoint and (away := unreachable("S3", endpoint, environment.workspace)):
        return frozenset(), away
    try:
        return restorable_from_remote(stages, changes, environment.workspace), ""
    except PipelineError as error:
        reason = environment.mask(str(error))[:200]
        return frozenset(), f"DVC's remote, which may have some of these results, can't be asked ({reason})"


def _refusal(stage: PipelineStage, needed: Sequence[PipelineStage], found: Mapping[str, Foreseen]) -> str:
    """Why a stage can't run alone; empty if it can: all that it needs must be up to date and in place."""
    late = late_inputs(stage, needed, [name for name, item in found.items() if item.state == "unchanged"])
    if not late:
        return ""
    names = dict.fromkeys(name for causes in late.values() for name in causes)
    what = f"what it reads of {', '.join(late)} isn't up to date"
    cause = "" if set(names) == set(late) else f", because of {', '.join(names)}"
    return f"`--only` would be refused: {what}{cause}; run `erv run {stage.name}`"


def _timed(item: Foreseen, times: Mapping[str, Took]) -> Foreseen:
    took = times.get(item.name)
    return item if took is None else replace(item, seconds=took.seconds, elsewhere=took.elsewhere)


def _placed(item: Foreseen, elsewhere: Mapping[str, str]) -> Foreseen:
    """With the pool that it would be sent to; a result that DVC has is fetched, wherever it was made."""
    return replace(item, pool=elsewhere.get(item.name, "")) if item.works else item


def _held_back(environment: Environment, *, carry: bool) -> str:
    """Why the commit would not be sent; empty if it would."""
    try:
        commit_of(environment.workspace)
        changes_to_carry(environment.workspace, carry=carry)
    except CommitError as error:
        return f"the run would be refused: {error}"
    return ""


@dataclass
class _Codes:
    """The files of code that changed, each dependency looked at once."""

    workspace: Path
    known: dict[ChangedFile, tuple[Why, ...]] = field(default_factory=dict)

    def why(self, changed: ChangedFile) -> tuple[Why, ...]:
        if changed not in self.known:
            self.known[changed] = self._look(changed)
        return self.known[changed]

    def _look(self, changed: ChangedFile) -> tuple[Why, ...]:
        try:
            files = changed_files(changed, Contents(self.workspace))
        except PipelineError as error:  # no git: then the dependency is named, and why no more is known
            return (Why("code", changed.path, changed.before, changed.after, str(error)),)
        return tuple(Why("code", file.path, file.before, file.after, file.change) for file in files)


def _forced(stage: PipelineStage) -> Foreseen:
    return Foreseen(stage.name, "runs", (Why("forced"),))


def _foreseen(
    stage: PipelineStage,
    stages: Sequence[PipelineStage],
    known: _Known,
    before: Mapping[str, Foreseen],
    codes: _Codes,
) -> Foreseen:
    own = known.changes[stage.name]
    producers = [other for other in stages if other.name in before]
    changed = [other for other in producers if before[other.name].state != "unchanged"]
    rewritten = [other for other in changed if not before[other.name].same]
    # What its producer writes or puts back does not count as it is now, but as it is then.
    files = [file for file in own.files if not _written(file, changed)]
    files += [file for file in own.once_back if not _written(file, rewritten)]
    why = tuple(_own(own, files, stage.name, codes))
    above = [name for name in stage.upstream if name in before and not before[name].same]
    follows = tuple(Why("follows", name) for name in above)
    if why and not above:
        if own.in_cache and all(item.what == "output" for item in why):
            return Foreseen(stage.name, "from cache", why, same=True)
        if stage.name in known.in_remote:
            return Foreseen(stage.name, "from remote", why, same=True)
        if own.ran_before:
            return Foreseen(stage.name, "from cache", why)
        harmless = all(item.what == "code" and item.change == HARMLESS for item in why)
        return Foreseen(stage.name, "runs", why, harmless=harmless)
    if why:
        return Foreseen(stage.name, "runs", (*why, *follows))
    return Foreseen(stage.name, "follows" if follows else "unchanged", follows, same=not follows)


def _own(own: StageChanges, files: Sequence[ChangedFile], stage: str, codes: _Codes) -> list[Why]:
    found = [Why("never ran")] if own.never_ran else []
    found += [Why("command")] if own.command else []
    for item in own.parameters:
        before, after = (None if value is ABSENT else value for value in (item.before, item.after))
        found.append(Why("parameter", item.name, before, after))
    for file in files:
        if is_code(file.path) and file.after is not None:
            found += codes.why(file)
        else:
            change = "missing" if file.after is None else ""
            found.append(Why("data", file.path, file.before, file.after, change))
    return found + [Why("output", path, change=state) for path, state in own.outputs]


def _written(file: ChangedFile, by: Sequence[PipelineStage]) -> bool:
    return any(overlap(file.path, output) for stage in by for output in stage.outputs)


def _times(environment: Environment, names: Sequence[str], device: str) -> tuple[dict[str, Took], str]:
    if not environment.mlflow_uri:
        remedy = remedy_for("MLflow", environment.workspace)
        return {}, f"no MLflow server is configured, which knows how long stages took; {remedy}"
    try:
        return last_times(environment, names, device), ""
    except OSError as error:
        reason = environment.mask(" ".join(str(error).split()))[:200]
        return {}, f"MLflow, which knows how long stages took, can't be asked ({reason})"


def _longest_chain(stages: Sequence[PipelineStage], items: Sequence[Foreseen]) -> float:
    ends: dict[str, float] = {}
    for stage, item in zip(stages, items, strict=True):
        start = max((ends[name] for name in stage.upstream if name in ends), default=0.0)
        ends[stage.name] = start + (item.seconds or 0.0)
    return max(ends.values(), default=0.0)
