"""Feedback as traces in MLflow: one per answer, with what people said of it as their assessments.

The id of a trace follows from its answer, and those of its assessments from it and their names, so that
telling MLflow again adds nothing, and what somebody says later replaces what was said before.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from erv.app.feedback import LineRefused
from erv.environment import Environment
from erv.errors import StackError
from erv.tracking.lock_entries import client_of
from erv.tracking.patience import patient_requests, repeated

if TYPE_CHECKING:
    from mlflow.entities import Assessment, Span, TraceInfo

EXPERIMENT = " feedback"  # after the name of the workspace's experiment
_SOURCE = "erv app"
_NAME = "explain"


def trace_id_of(line: Mapping[str, Any]) -> str:
    """The id of the trace of an answer, from a line of the journal."""
    return f"tr-{hashlib.sha256(line['answer']['id'].encode()).hexdigest()[:32]}"


def send(environment: Environment, line: Mapping[str, Any]) -> None:
    """Writes the trace of a line of the journal, see `erv.app.feedback`; takes back what isn't said any more.

    Raises:
        LineRefused: MLflow answers, and doesn't take it.
        StackError: MLflow can't be reached, or lets nobody in.
    """
    from mlflow.exceptions import MlflowException, RestException
    from mlflow.tracing.client import TracingClient

    try:
        with patient_requests():
            experiment = _experiment(environment)
            client = TracingClient(environment.mlflow_uri)
            repeated(partial(client.log_spans, experiment, [_span(line)]))
            info = _info(line, experiment)
            repeated(partial(client.start_trace, info))
            # MLflow adds assessments to a trace that it has, and never takes one away.
            for name in _withdrawn(repeated(partial(client.get_trace_info, info.trace_id)), info):
                repeated(partial(client.delete_assessment, info.trace_id, name))
    except (MlflowException, NotImplementedError, OSError) as error:
        server = environment.mask(environment.mlflow_uri or "")
        reason = environment.mask(" ".join(str(error).split()))[:300]
        kind = LineRefused if isinstance(error, RestException) else StackError
        raise kind(f"MLflow at {server}: {reason}") from error


def _experiment(environment: Environment) -> str:
    from mlflow.exceptions import MlflowException

    client, name = client_of(environment), f"{environment.mlflow_experiment}{EXPERIMENT}"
    found = repeated(lambda: client.get_experiment_by_name(name))
    if found is not None:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name))
    except MlflowException as error:  # another process was faster
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return str(client.get_experiment_by_name(name).experiment_id)


def _nanoseconds(line: Mapping[str, Any]) -> int:
    return int(datetime.fromisoformat(line["at"]).timestamp()) * 1_000_000_000


def _span(line: Mapping[str, Any]) -> Span:
    from mlflow.entities import Span, SpanType
    from mlflow.tracing.constant import SpanAttributeKey

    trace_id, now = trace_id_of(line), _nanoseconds(line)
    clip = {name: value for name, value in line["clip"].items() if value is not None}
    values = {
        SpanAttributeKey.REQUEST_ID: trace_id,
        SpanAttributeKey.SPAN_TYPE: SpanType.LLM,
        SpanAttributeKey.INPUTS: clip,
        SpanAttributeKey.OUTPUTS: line["answer"]["completion"],
    }
    number = bytes.fromhex(trace_id.removeprefix("tr-"))
    return Span.from_dict(
        {
            "trace_id": b64encode(number).decode(),
            "span_id": b64encode(number[:8]).decode(),
            "parent_span_id": "",
            "name": _NAME,
            "start_time_unix_nano": now,
            "end_time_unix_nano": now,
            "status": {"code": "OK"},
            "attributes": {name: json.dumps(value) for name, value in values.items()},
        }
    )


def _info(line: Mapping[str, Any], experiment: str) -> TraceInfo:
    from mlflow.entities import TraceInfo, TraceLocation, TraceState
    from mlflow.tracing.constant import TRACE_REQUEST_RESPONSE_PREVIEW_MAX_LENGTH_OSS, TraceTagKey

    answer, version = line["answer"], line["version"]
    preview = f"{answer['emotion'] or 'no answer'}: {answer['explanation'] or answer['completion']}"
    return TraceInfo(
        trace_id=trace_id_of(line),
        trace_location=TraceLocation.from_experiment_id(experiment),
        request_time=_nanoseconds(line) // 1_000_000,
        execution_duration=0,
        state=TraceState.OK,
        request_preview=line["clip"]["name"],
        response_preview=preview[:TRACE_REQUEST_RESPONSE_PREVIEW_MAX_LENGTH_OSS],
        tags={
            TraceTagKey.TRACE_NAME: _NAME,
            "erv.model": version["name"],
            "erv.version": version["number"],
            "erv.bundle": version["bundle"],
            "erv.clip_sha256": line["clip"]["sha256"],
        },
        assessments=_assessments(line),
    )


def _assessments(line: Mapping[str, Any]) -> list[Assessment]:
    """What was said: `helpful` and `preferred` as feedback, `truth` and `explanation` as expectations."""
    from mlflow.entities import AssessmentSource, AssessmentSourceType, Expectation, Feedback

    said, trace_id = line["said"], trace_id_of(line)
    human = AssessmentSource(AssessmentSourceType.HUMAN, _SOURCE)
    found: list[Assessment] = []
    if said["thumb"] is not None:
        found.append(Feedback(name="helpful", value=said["thumb"] == "up", source=human, trace_id=trace_id))
    if said["preferred"] is not None:
        found.append(Feedback(name="preferred", value=said["preferred"], source=human, trace_id=trace_id))
    for name, value in (("truth", said["emotion"]), ("explanation", said["explanation"])):
        if value is not None:
            found.append(Expectation(name=name, value=value, source=human, trace_id=trace_id))
    for assessment in found:
        content = f"{trace_id} {assessment.name}"
        assessment.assessment_id = f"a-{hashlib.sha256(content.encode()).hexdigest()[:32]}"
    return found


def _withdrawn(known: TraceInfo, told: TraceInfo) -> list[str]:
    """Ids of assessments of ours that MLflow has, and that are not said any more."""
    said = {one.assessment_id for one in told.assessments}
    return [
        one.assessment_id
        for one in known.assessments
        if one.source.source_id == _SOURCE and one.assessment_id not in said
    ]
