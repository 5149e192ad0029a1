"""What becomes of the results of a flow run: linked, stored, registered, compared with earlier ones."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect.logging import get_run_logger

from erv import pipeline
from erv.environment import Environment, child_environment
from erv.pipeline import PipelineStage
from erv.pipeline.lock_file import NAME as LOCK
from erv.stack.dvc_remote import stores
from erv.stack.outages import through_outages
from erv.stack.stored import all_stored
from erv.sweep.tracked import SWEEP_TAG, TRIAL_TAG
from erv.tracking import experiment_page, lock_entries
from erv.tracking.description import Description
from erv.tracking.origin import COMMIT_TAG
from erv.tracking.run import StageRun
from erv.tracking.since import since
from flows.cancellation import Cancellation
from flows.graph import StageReport, is_done
from flows.summary import flat_metrics

if TYPE_CHECKING:
    from erv.register.publish import PublishResult
    from erv.register.verdict import Verdict


def link_runs(
    environment: Environment, parent: StageRun, reports: Sequence[StageReport]
) -> dict[str, str | None]:
    """Links every stage's run, new or earlier, to the parent, and stores the files that say what ran."""
    lock = pipeline.read_lock_entries()
    done = {r.name: r.outcome for r in reports if r.outcome in ("ran", "restored", "unchanged")}
    lock_entries.reconcile(environment, lock)
    runs = lock_entries.link(environment, parent, lock, done)
    for file in lock_entries.pipeline_files():
        parent.log_artifact(file, lock_entries.LOCK_ARTIFACT_FOLDER)
    parent.log_text(lock_entries.markdown(lock, runs, done), "lineage.md")
    return runs


def store_outputs(
    environment: Environment,
    reports: Sequence[StageReport],
    cancellation: Cancellation,
    stopped: Callable[[], bool],
) -> None:
    """Stores every output in the remote, where that of a published version must be available.

    Nothing is stored if not every stage is up to date.
    """
    if cancellation.asked() or not all(is_done(report) for report in reports):
        return
    if not stores(environment):
        get_run_logger().warning("no object store is configured: outputs stay on this machine")
        return

    def cancelled() -> bool:
        return stopped() or cancellation.asked()

    get_run_logger().info("storing the outputs in s3://%s", environment.dvc_bucket)

    def push() -> None:
        if not all_stored(environment):
            pipeline.push(
                on_line=functools.partial(get_run_logger().debug, "%s"),
                cancelled=cancelled,
                environment=child_environment(environment),
            )

    through_outages(environment, push, say=get_run_logger().warning, cancelled=cancelled)


def publish_candidate(
    environment: Environment,
    stages: Sequence[PipelineStage],
    settings: Any,
    parent: StageRun,
    cancellation: Cancellation,
    by: str,
) -> tuple[PublishResult | None, list[str], bool]:
    """Makes sure that the candidate is registered and gated.

    Returns:
        Its version, its lineage as it is now, and whether that holds.
    """
    if not includes(stages, "register"):
        return None, [], False
    from erv.lineage.gate import LineageGate, lineage_verdict
    from erv.lineage.node import brief
    from erv.lineage.withdrawal import WithdrawalGate
    from erv.register.publish import publish

    logger, lineage = get_run_logger(), LineageGate(environment, settings)

    def verified(number: str) -> Verdict:
        logger.info("verifying the lineage of version %s", number)
        return lineage(number)

    logger.info("registering the candidate, and deciding its gates")
    candidate = next(s.outputs[0] for s in stages if s.group == "register")
    result = through_outages(
        environment,
        lambda: publish(
            Path(candidate),
            environment,
            settings,
            parent_run_id=parent.run_id,
            by=by,
            lineage=verified,
            withdrawn=WithdrawalGate(environment, settings),
            cancelled=cancellation.asked,
        ),
        mlflow=True,
        say=logger.warning,
    )
    parent.set_tags({"erv.model_version": f"{result.name}/{result.version}"})
    _tag_sweep(environment, parent, result)
    node = lineage.node(result.version, result.aliases)
    return result, brief(node), lineage_verdict(node).passed


def _tag_sweep(environment: Environment, parent: StageRun, result: PublishResult) -> None:
    """Has a version say of which sweep's trial it is."""
    from mlflow.exceptions import MlflowException

    tags = {name: parent.tags[name] for name in (SWEEP_TAG, TRIAL_TAG) if name in parent.tags}
    try:
        for name, value in tags.items():
            client = lock_entries.client_of(environment)
            client.set_model_version_tag(result.name, result.version, name, value)
    except MlflowException as error:
        get_run_logger().warning("version %s can't be tagged with its sweep now: %s", result.version, error)


def since_before(
    environment: Environment,
    parent: StageRun,
    described: Description,
    comparison: dict[str, Any],
) -> list[str]:
    """What changed against earlier runs, in data and in the metrics of the candidate on all clips.

    The run keeps what they were measured on and by, for the runs after it, whether it evaluated or an
    earlier one did.
    """
    from erv.comparison.changed_data import data_since
    from erv.comparison.measured import measured_of

    candidate = described.tags["erv.candidate"]
    entries = pipeline.read_lock_entries(environment.workspace / LOCK)
    measured = measured_of(entries, candidate, environment.workspace) if comparison else {}
    parent.set_tags(measured)
    mine, found = f"{candidate}/overall/", flat_metrics(comparison)
    values = {f"{mine}{metric}": found.get(f"{mine}{metric}") for metric in experiment_page.METRICS}
    if all(value is None for value in values.values()):
        values = {}
    commit = parent.tags.get(COMMIT_TAG)  # HEAD may have moved since
    data = functools.partial(data_since, environment=environment)
    return since(environment, described.references, values, commit, measured, data)


def includes(stages: Sequence[PipelineStage], group: str) -> bool:
    """Whether a stage of this group is among them."""
    return any(stage.group == group for stage in stages)
