"""What a sweep has to be before anything of it runs: all faults are told at once, or nothing was begun."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from erv import pipeline
from erv.doctor.reruns import all_reruns
from erv.environment import Environment, child_environment
from erv.errors import SettingsError
from erv.files import parse_yaml, sha256_of_file
from erv.parameters import WITHOUT_EFFECT
from erv.pipeline import PipelineError, PipelineStage, select
from erv.pipeline.run import LOCK_FILE
from erv.remote.commit import changes_to_carry, commit_of, patch_id
from erv.settings import Settings, load_settings
from erv.settings.overrides import overridden
from erv.settings.settings import parse_settings
from erv.sweep.folder import Folder
from erv.sweep.measures import (
    Measure,
    candidate_stage,
    check_comparable,
    check_measured,
    choose,
    varied_stages,
)
from erv.sweep.plan import SAMPLERS, Plan, read_plan
from erv.sweep.space import Space, parse_space

_POINTS = 8  # measurements of a grpo trial, if machine.grpo.validate_steps doesn't say otherwise
_STEPS = 20  # between them where the number of steps isn't known


@dataclass(frozen=True)
class Wish:
    """A sweep as it is asked for; what is empty is taken from the sweep of that name, or is the usual."""

    name: str
    over: Sequence[str] = ()
    stage: str = ""
    metric: str = ""
    direction: str = ""
    overrides: Sequence[str] = ()
    seed: int = 0
    sampler: str = "tpe"
    prune: bool = True
    prune_after: int = 4
    propose: bool = True


@dataclass(frozen=True)
class Begun:
    """A sweep that may go on.

    Attributes:
        folder: of the sweep.
        plan: what it was begun with.
        measure: by what its trials are compared.
        stages: all of `dvc.yaml`.
        needed: the stages that trials need and don't change.
        fixed: what each trial sets besides its values, the measuring included.
        new: whether it began now.
    """

    folder: Folder
    plan: Plan
    measure: Measure
    stages: Sequence[PipelineStage]
    needed: Sequence[str]
    fixed: tuple[str, ...]
    new: bool


def begin(environment: Environment, folder: Folder, wish: Wish, *, cancelled: Callable[[], bool]) -> Begun:
    """Begins a sweep, or goes on with it; hold the folder's lock.

    Raises:
        SettingsError: the wish has a fault, or is another than that with which the sweep began.
        CommitError: there are uncommitted changes, which `machine.carry_changes` doesn't carry.
        PipelineError: what the trials need isn't up to date.
    """
    known = read_plan(folder.path)
    stages = pipeline.read_stages(environment.workspace)
    if known is not None and not wish.over:
        return _checked(environment, folder, known, stages, wish, new=False)
    plan, patch = _plan(environment, wish, stages)
    begun = _checked(environment, folder, plan, stages, wish, new=known is None)
    if known is not None:
        known.require_same(plan)
        return begun
    _require_up_to_date(environment, stages, plan.stage, begun.needed, cancelled)
    folder.begin(plan, patch)
    return begun


def _plan(environment: Environment, wish: Wish, stages: Sequence[PipelineStage]) -> tuple[Plan, str | None]:
    path = environment.workspace / "params.yaml"
    settings = load_settings(path)
    space = parse_space(wish.over)
    if wish.sampler not in SAMPLERS:
        raise SettingsError(f"sampler {wish.sampler!r}: expected {' or '.join(SAMPLERS)}")
    stage = wish.stage or candidate_stage(stages, settings.register_.policy).name
    stage, measure = choose(stages, stage, wish.metric, wish.direction)
    check_comparable(measure, space.names)
    space.check(path, wish.overrides)
    commit = commit_of(environment.workspace)
    patch = changes_to_carry(environment.workspace, carry=settings.machine.carry_changes)
    plan = Plan(
        name=wish.name,
        space=space.texts,
        overrides=tuple(wish.overrides),
        stage=stage,
        metric=measure.metric,
        direction=measure.direction,
        seed=wish.seed,
        sampler=wish.sampler,
        prune=wish.prune,
        prune_after=wish.prune_after,
        commit=commit,
        patch="" if patch is None else patch_id(patch),
        parameters=sha256_of_file(path),
    )
    return plan, patch


def _checked(
    environment: Environment,
    folder: Folder,
    plan: Plan,
    stages: Sequence[PipelineStage],
    wish: Wish,
    *,
    new: bool,
) -> Begun:
    stage, measure = choose(stages, plan.stage, plan.metric, plan.direction)
    path = environment.workspace / "params.yaml" if new else folder.parameters
    content = overridden(path, None, plan.overrides).content
    settings = parse_settings(parse_yaml(content.encode()), str(path))
    check_measured(settings, stage)
    if wish.propose:
        candidate = candidate_stage(stages, settings.register_.policy)
        if stage not in [item.name for item in select(stages, [candidate.name])]:
            raise SettingsError(
                f"the best trial can't be proposed: register.policy is {settings.register_.policy!r}, which"
                f" {stage} has no part in; set register.policy for all trials, or give --no-propose"
            )
    used = _used(environment, plan.dimensions, plan.overrides)
    varied = varied_stages(stages, stage, used)
    return Begun(folder, plan, measure, stages, varied[1], _fixed(settings, plan), new)


def _used(environment: Environment, space: Space, overrides: Sequence[str]) -> dict[str, list[str]]:
    """The stages or groups that depend on each parameter that is varied, or set and of use."""
    found = {item.name: list(item.own) for item in all_reruns(environment.workspace)}

    def own(name: str) -> list[str]:
        if name in found or name.startswith(WITHOUT_EFFECT):
            return found.get(name, [])
        section = f"{name.rpartition('.')[0]}."  # a reward that its variant doesn't have yet, say
        return next((users for other, users in found.items() if other.startswith(section)), [])

    used = {name: own(name) for name in space.names}
    settings = [override.partition("=")[0] for override in overrides]
    return used | {name: users for name in settings if (users := own(name))}


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
