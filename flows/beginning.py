"""How a flow begins that runs stages: with its servers alone and a whole `dvc.lock`, and with all checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prefect.logging import get_run_logger

from erv import pipeline
from erv.doctor import preflight
from erv.environment import Environment, isolate, load_environment
from erv.parameters import parse, read
from erv.pipeline import PipelineStage, Unchanged
from erv.settings import Settings
from erv.stack.dvc_remote import write_dvc_remote
from erv.tracking.description import Description, describe
from flows import origin
from flows.cancellation import Cancellation
from flows.stages import Placement, ask_unchanged
from flows.wanted import Wanted


@dataclass(frozen=True)
class Beginning:
    """What is known before the first stage runs.

    Attributes:
        environment: of the workspace.
        settings: its parameters, with the placement of the run.
        stages: those to go through, each after all that it depends on.
        forced: those of them that run even if nothing changed.
        unchanged: what DVC says of them.
        placement: where they run.
        described: what their run in MLflow is called, and says.
    """

    environment: Environment
    settings: Settings
    stages: Sequence[PipelineStage]
    forced: frozenset[str]
    unchanged: Unchanged
    placement: Placement
    described: Description


def beginning(
    wanted: Wanted, cancellation: Cancellation, placement: Mapping[str, str] | None = None
) -> Beginning:
    """Checks all that the stages need, and asks DVC which of them are up to date; hold the workspace.

    Args:
        wanted: which stages.
        cancellation: says whether to stop.
        placement: of this run, which counts before `machine.placement`.

    Raises:
        ErvError: as the checks say.
    """
    logger = get_run_logger()
    environment = load_environment()
    isolate(environment)
    repaired = pipeline.repair_lock()
    if repaired is not None:
        logger.warning("%s", repaired)
    logger.info("reading pipeline and pins, and checking settings, judges, disk and servers")
    everything = pipeline.read_stages()
    needed = wanted.needed(everything)
    settings = preflight.check(environment, needed, placement)
    moved = pipeline.set_aside(everything, pipeline.read_lock_entries())
    if moved:
        logger.warning(
            "set aside what no stage of dvc.yaml writes any more: %s; the cache still has the outputs of a"
            " stage that is asked for again",
            ", ".join(map(str, moved)),
        )
    # DVC reads its remote from a file: what ERV_S3_* says now counts for it too.
    write_dvc_remote(environment)
    forced = wanted.forced(everything)
    logger.info("asking DVC which stages are up to date")
    unchanged = ask_unchanged(environment, needed, forced, cancellation)
    stages = wanted.to_run(needed, unchanged)
    described = describe(
        environment,
        parse(read(environment.workspace)),
        candidate=settings.register_.policy,
        model=settings.register_.model_name,
        targets=wanted.names,
        started_by=origin.started_by(),
    )
    where = Placement.of(environment, settings.machine, everything, stages, unchanged)
    return Beginning(environment, settings, stages, forced, unchanged, where, described)
