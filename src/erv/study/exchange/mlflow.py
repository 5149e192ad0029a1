"""Answers as assessments by people on MLflow's traces of the explanations that they are about.

A trace that is not there yet is written as `erv traces` does. Each assessment names the answer that it comes
from, so that exporting again adds only what is new. An answer that was taken back is not exported; if it was
before, its assessments are deleted, or a trace would have two of one rater that contradict each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from erv.environment import Environment
from erv.errors import DataError, StackError
from erv.study.answers.tables import UNDO
from erv.study.exchange.given import latest
from erv.study.plan import TIE, Key, Study, read_key
from erv.tracking.patience import patient_requests, repeated

if TYPE_CHECKING:
    from mlflow.entities import Feedback

STUDY, ANSWER, ITEM = "erv.study", "erv.answer", "erv.item"
EMOTION, PREFERRED = "people/emotion", "people/preferred"
_RATED = "people/rating_{}"


def export_assessments(
    study: Study, log: Sequence[Mapping[str, Any]], environment: Environment
) -> Iterator[str]:
    """Writes assessments; yields a sentence per policy.

    Of each explanation: `people/emotion` (what the rater sees), `people/preferred` (`yes`, `no` or `tie`, of
    a pair) and `people/rating_NAME` (1 to 5, of a rating). The source is the rater's pseudonym.

    Args:
        study: the plan.
        log: from `Database.log`.
        environment: where MLflow is.

    Raises:
        EvaluationError: a policy was not evaluated here, or no run on the server is of its predictions.
        DataError: a policy was evaluated again since the study was prepared.
        StackError: MLflow can't be reached or refuses.
    """
    from erv import pipeline
    from erv.traces.evaluated import find_runs, read_evaluation
    from erv.traces.writing import TraceWriter, trace_id_of

    key, given = read_key(study), latest(study, log)
    taken_back = _taken_back(study, log)
    entries = pipeline.read_lock_entries()
    evaluations = [read_evaluation(policy, entries) for policy in key.policies]
    _check_texts(study, key, {one.policy: one.rows for one in evaluations})
    runs = find_runs(list(key.policies), entries, environment)
    for evaluated, run in zip(evaluations, runs, strict=True):
        rows = {(row["dataset"], row["clip_id"]): row for row in evaluated.rows}
        said = _about(evaluated.policy, study, key, given)
        writer = TraceWriter(environment, evaluated, run)
        client = _Client(environment)
        clips = dict.fromkeys([clip for clip, _ in said] + _clips_of(evaluated.policy, key, taken_back))
        there = [rows[clip] for clip in clips]
        missing = {trace_id_of(row, run.run_id): row for row in writer.missing(there)}
        wanted = {clip for clip, _ in said}
        for row in missing.values():
            if (row["dataset"], row["clip_id"]) in wanted:
                writer.write(row)
        known, gone = {}, 0
        for trace in dict.fromkeys(trace_id_of(row, run.run_id) for row in there):
            known[trace] = {} if trace in missing else client.known(trace)
            for (answer, _), assessment in known[trace].items():
                if answer in taken_back:
                    client.delete(trace, assessment)
                    gone += 1
        new = 0
        for clip, feedback in said:
            trace = trace_id_of(rows[clip], run.run_id)
            if (feedback.metadata[ANSWER], feedback.name) not in known[trace]:
                client.log(trace, feedback)
                new += 1
        deleted = f", {gone} deleted whose answers were taken back" if gone else ""
        yield (
            f"{evaluated.policy}: {len(said)} assessments by people, {new} new{deleted}\n"
            f"  {run.page(environment)}"
        )


def _taken_back(study: Study, log: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The answers that were taken back, as assessments name them, and their items."""
    return {_answer(study, row["undoes"]): row["item"] for row in log if row["kind"] == UNDO}


def _clips_of(policy: str, key: Key, answers: Mapping[str, str]) -> list[tuple[str, str]]:
    """The clips of the items of answers, those with an explanation by a policy."""
    items = [key.items[item] for item in answers.values()]
    return [(about.dataset, about.clip_id) for about in items if policy in about.policies.values()]


def _answer(study: Study, number: int) -> str:
    return f"{study.sha256[:12]}/{number}"


def _check_texts(study: Study, key: Key, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Makes sure that the predictions here have the texts that people judged."""
    from erv.files import sha256_of_file
    from erv.traces.evaluated import EVALUATIONS

    for policy in rows:
        path = EVALUATIONS / policy / "predictions.parquet"
        if sha256_of_file(path) != key.policies[policy]:
            raise DataError(
                f"{path}: not the predictions that study {study.name} was prepared from, so its answers are"
                " about other texts; put those back with the dvc.lock of that time"
            )


def _about(
    policy: str, study: Study, key: Key, given: Sequence[tuple[Mapping[str, Any], dict[str, Any]]]
) -> list[tuple[tuple[str, str], Feedback]]:
    """Clip and assessment of each answer about a policy's explanations, main items alone."""
    found = []
    for row, value in given:
        item, about = study.item(row["item"]), key.items[row["item"]]
        code = next((code for code, name in about.policies.items() if name == policy), None)
        if item.role != "main" or code is None:
            continue
        clip = (about.dataset, about.clip_id)
        said: dict[str, str | int] = {EMOTION: value["emotion"]}
        if "preferred" in value:
            choice = value["preferred"]
            said[PREFERRED] = TIE if choice == TIE else "yes" if choice == code else "no"
        said |= {_RATED.format(name): number for name, number in value.get("ratings", {}).items()}
        found += [(clip, _feedback(name, content, row, study)) for name, content in said.items()]
    return found


def _feedback(name: str, value: str | int, row: Mapping[str, Any], study: Study) -> Feedback:
    from mlflow.entities import AssessmentSource, AssessmentSourceType, Feedback

    return Feedback(
        name=name,
        value=value,
        source=AssessmentSource(AssessmentSourceType.HUMAN, row["rater"]),
        metadata={STUDY: study.sha256, ANSWER: _answer(study, row["number"]), ITEM: row["item"]},
        create_time_ms=row["at_ms"],
        last_update_time_ms=row["at_ms"],
    )


class _Client:
    """MLflow's assessments; every call raises StackError if the server can't be reached or refuses."""

    def __init__(self, environment: Environment) -> None:
        from mlflow.tracing.client import TracingClient

        from erv.tracking.lock_entries import client_of

        client_of(environment)  # for its limits on waiting
        self._environment, self._client = environment, TracingClient(environment.mlflow_uri)

    def known(self, trace: str) -> dict[tuple[str, str], str]:
        """Answer and name of the assessments that this module wrote to a trace, and their ids."""
        info = self._explained(partial(repeated, partial(self._client.get_trace_info, trace)))
        return {
            (one.metadata[ANSWER], one.name): one.assessment_id
            for one in info.assessments
            if ANSWER in (one.metadata or {})
        }

    def log(self, trace: str, feedback: Feedback) -> None:
        """Adds an assessment to a trace."""
        # Not repeated here: if only the reply was lost, the assessment would be there twice.
        self._explained(partial(self._client.log_assessment, trace, feedback))

    def delete(self, trace: str, assessment: str) -> None:
        """Removes an assessment from a trace."""
        self._explained(partial(self._client.delete_assessment, trace, assessment))

    def _explained(self, call: Any) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            with patient_requests():
                return call()
        except (MlflowException, OSError) as error:
            server = self._environment.mask(self._environment.mlflow_uri or "")
            reason = self._environment.mask(" ".join(str(error).split()))[:300]
            raise StackError(f"MLflow at {server}: {reason}; run the same command again") from error
