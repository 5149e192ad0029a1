"""What a sweep has to be before anything of it runs: all faults are told at once, or nothing was begun."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from erv import pipeline
from erv.environment import Environment, child_environment
from erv.errors import SettingsError
from erv.files import parse_yaml, sha256_of_file
from erv.parameters import PARAMETERS
from erv.pipeline import PipelineError, PipelineStage, select
from erv.pipeline.run import LOCK_FILE
from erv.remote.commit import changes_to_carry, commit_of, patch_id
from erv.settings import Settings, load_settings
from erv.settings.overrides import overridden
from erv.settings.settings import parse_settings
from erv.sweep.beside import check_sources
from erv.sweep.extent import Extent, read_extent
from erv.sweep.folder import Folder
from erv.sweep.graph import Graph, kept_graph, read_graph
from erv.sweep.measures import (
    Measure,
    candidate_stage,
    check_comparable,
    check_measured,
    choose,
    varied_stages,
)
from erv.sweep.options import SAMPLERS
from erv.sweep.plan import Plan, read_plan
from erv.sweep.space import Space, parse_space
from erv.sweep.wish import Wish

_USUAL: dict[str, Any] = {
    "overrides": (),
    "seed": 0,
    "sampler": SAMPLERS[0],
    "prune": True,
    "prune_after": 4,
}
_POINTS = 8  # measurements of a grpo trial, if machine.grpo.validate_steps doesn't say otherwise
_STEPS = 20  # between them where the number of steps isn't known


@dataclass(frozen=True)
class Begun:
    """A sweep that may go on.

    Attributes:
        folder: of the sweep.
        plan: what it was begun with.
        measure: by what its trials are compared.
        stages: all of `dvc.yaml` when it began.
        needed: the stages that trials need and don't change.
        fixed: what each trial sets besides its values, the measuring included.
        new: whether it began now.
        extent: how far it is to go this time.
    """

    folder: Folder
    plan: Plan
    measure: Measure
    stages: Sequence[PipelineStage]
    needed: Sequence[str]
    fixed: tuple[str, ...]
    new: bool
    extent: Extent


def begin(environment: Environment, folder: Folder, wish: Wish, *, cancelled: Callable[[], bool]) -> Begun:
    """Begins a sweep, or goes on with it; hold the folder's lock.

    Raises:
        SettingsError: the wish has a fault, or is another than that with which the sweep began.
        DataError: the lock file of a source that trials read is malformed.
        CommitError: there are uncommitted changes, which `machine.carry_changes` doesn't carry.
        PipelineError: what the trials need isn't up to date.
    """
    begun, graph, patch = _looked(environment, folder, wish)
    if begun.new:
        _require_up_to_date(environment, begun.stages, begun.plan.stage, begun.needed, cancelled)
        folder.begin(begun.plan, patch, graph)
    return begun


def check(environment: Environment, wish: Wish) -> None:
    """Refuses what `begin` would refuse, apart from what isn't up to date; nothing is made or changed.

    Raises:
        SettingsError: the wish has a fault, or is another than that with which the sweep began.
        DataError: the lock file of a source that trials read is malformed.
        CommitError: there are uncommitted changes, which `machine.carry_changes` doesn't carry.
        PipelineError: `dvc.yaml` has faults.
    """
    _looked(environment, Folder(environment, wish.name), wish)


def _looked(environment: Environment, folder: Folder, wish: Wish) -> tuple[Begun, Graph, str | None]:
    known, patch = read_plan(folder.path), None
    # The clone is free for other work meanwhile, on dvc.yaml too.
    graph = (None if known is None else kept_graph(folder.begun)) or read_graph(environment.workspace)
    if known is None:
        plan, patch = _plan(environment, wish, graph, None)
    else:
        known.require_same(_as_given(known, wish, graph))
        plan = known
        if wish.over:
            known.require_same(_plan(environment, wish, graph, known)[0])
    extent = read_extent(folder.path, wish)
    return _checked(environment, folder, plan, graph, extent, new=known is None), graph, patch


def _as_given(known: Plan, wish: Wish, graph: Graph) -> Plan:
    """What the sweep would be by the options that are given; of the others it stays what it is."""
    given = wish.planned()
    if wish.stage:
        given["stage"] = choose(graph.stages, wish.stage, "", "")[0]
    return dataclasses.replace(known, **given)


def _plan(environment: Environment, wish: Wish, graph: Graph, known: Plan | None) -> tuple[Plan, str | None]:
    """The plan of a wish; what it leaves open is as in the known one, or the usual."""
    path = environment.workspace / PARAMETERS
    settings = load_settings(path)
    space = parse_space(wish.over)
    before = {} if known is None else {name: getattr(known, name) for name in _USUAL}
    given = {name: value for name, value in wish.planned().items() if name in _USUAL}
    usual: dict[str, Any] = {**_USUAL, **before, **given}
    overrides = usual["overrides"]
    if usual["sampler"] not in SAMPLERS:
        raise SettingsError(f"sampler {usual['sampler']!r}: expected {' or '.join(SAMPLERS)}")
    if known is not None:
        named = (known.stage, known.metric, known.direction)
    else:
        policy = settings.register_.policy
        named = (wish.stage or candidate_stage(graph.stages, policy).name, wish.metric, wish.direction)
    stage, measure = choose(graph.stages, *named)
    check_comparable(measure, graph, stage, space.names)
    space.check(path, overrides)
    _check_set(graph, stage, overrides)
    commit = commit_of(environment.workspace)
    patch = changes_to_carry(environment.workspace, carry=settings.machine.carry_changes)
    plan = Plan(
        name=wish.name,
        space=space.texts,
        stage=stage,
        metric=measure.metric,
        direction=measure.direction,
        commit=commit,
        patch="" if patch is None else patch_id(patch),
        parameters=sha256_of_file(path),
        **usual,
    )
    return plan, patch


def _check_set(graph: Graph, stage: str, overrides: Sequence[str]) -> None:
    """Refuses to set for all trials what decides which stages they have: those of the clone are looked at."""
    needed = [item.name for item in select(graph.stages, [stage])]
    for name in (override.partition("=")[0] for override in overrides):
        if name in graph.members and graph.uses(name, needed):
            raise SettingsError(
                f"--set {name}: decides which stages {stage} needs, which a sweep can't set; change it in"
                " params.yaml, run the pipeline, and start the sweep then"
            )


def _checked(
    environment: Environment,
    folder: Folder,
    plan: Plan,
    graph: Graph,
    extent: Extent,
    *,
    new: bool,
) -> Begun:
    stages = graph.stages
    stage, measure = choose(stages, plan.stage, plan.metric, plan.direction)
    path = environment.workspace / PARAMETERS if new else folder.parameters
    content = overridden(path, None, plan.overrides).content
    settings = parse_settings(parse_yaml(content.encode()), str(path))
    check_measured(settings, stage)
    if extent.propose:
        candidate = candidate_stage(stages, settings.register_.policy)
        if stage not in [item.name for item in select(stages, [candidate.name])]:
            raise SettingsError(
                f"the best trial can't be proposed: register.policy is {settings.register_.policy!r}, which"
                f" {stage} has no part in; set register.policy for all trials, or give --no-propose"
            )
    used = _used(graph, plan.dimensions, plan.overrides)
    varied = varied_stages(stages, stage, used)
    runs = set(varied[0])
    if extent.propose:  # what comes after, up to the report
        for item in stages:
            if runs.intersection(item.upstream):
                runs.add(item.name)
    kept = environment.workspace if new else folder.begun
    check_sources(environment.workspace, kept, [item for item in stages if item.name in runs])
    return Begun(folder, plan, measure, stages, varied[1], _fixed(settings, plan), new, extent)


def _used(graph: Graph, space: Space, overrides: Sequence[str]) -> dict[str, Sequence[str]]:
    """The stages or groups that depend on each parameter that is varied, or set and of use."""
    used: dict[str, Sequence[str]] = {name: graph.users(name) for name in space.names}
    settings = [override.partition("=")[0] for override in overrides]
    return used | {name: users for name in settings if (users := graph.users(name))}


def _fixed(settings: Settings, plan: Plan) -> tuple[str, ...]:
    """What trials set besides their values. That grpo measures changes none of its results."""
    if plan.stage.partition("@")[0] != "grpo" or settings.machine.grpo.validate_steps is not None:
        return plan.overrides
    steps = settings.grpo.max_steps
    every = _STEPS if steps is None else max(1, steps // _POINTS)
    return (*plan.overrides, f"machine.grpo.validate_steps={every}")


def _require_up_to_date(
    environment: Environment,
    stages: Sequence[PipelineStage],
    stage: str,
    needed: Sequence[str],
    cancelled: Callable[[], bool],
) -> None:
    """Every trial would make it again."""
    if not needed:
        return
    workspace = environment.workspace
    with pipeline.one_pipeline_at_a_time(workspace / LOCK_FILE):
        pipeline.repair_lock(workspace)
        unchanged = pipeline.ask_unchanged(
            [item for item in stages if item.name in needed],
            cancelled=cancelled,
            environment=child_environment(environment),
            workspace=workspace,
        )
    if late := [name for name in needed if name not in unchanged.names]:
        raise PipelineError(
            f"{', '.join(late)}: not up to date, and every trial needs it; `erv run {' '.join(late)}`"
            " makes or fetches it once"
        )
