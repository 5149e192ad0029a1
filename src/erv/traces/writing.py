"""Writes clips to MLflow as traces.

The id of a trace follows from its run and its row of the predictions. So a clip is written once however often
it is asked for, and a call whose answer was lost can be repeated. MLflow's usual way, spans that are exported
when they end, chooses ids at random and only logs what it fails to send.
"""

from __future__ import annotations

import hashlib
import json
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from erv.environment import Environment
from erv.errors import StackError
from erv.prompts import parse_completion
from erv.traces.assessments import assess
from erv.traces.evaluated import Evaluated, FoundRun
from erv.tracking.lock_entries import client_of
from erv.tracking.patience import patient_requests, repeated

if TYPE_CHECKING:
    from mlflow.entities import Span, TraceInfo

POLICY_TAG, DATASET_TAG, CLIP_TAG = "erv.policy", "erv.dataset", "erv.clip"
_PAGE = 500  # the most traces that MLflow returns per request


def trace_id_of(row: Mapping[str, Any], run_id: str) -> str:
    """The id of the trace of a clip: equal for equal rows of the same run."""
    # Predictions of an earlier erv lack the content of clips; their traces keep the ids that they had.
    told = {name: value for name, value in row.items() if name != "sha256" or value is not None}
    content = json.dumps([run_id, told], sort_keys=True)
    return f"tr-{hashlib.sha256(content.encode()).hexdigest()[:32]}"


class TraceWriter:
    """Writes the traces of one evaluation.

    Every call raises StackError if MLflow can't be reached or refuses.

    Args:
        environment: where MLflow is.
        evaluated: the evaluation.
        run: its run, which the traces are attached to.
    """

    def __init__(self, environment: Environment, evaluated: Evaluated, run: FoundRun) -> None:
        self._environment = environment
        self._evaluated = evaluated
        self._run = run

    def missing(self, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Those of these rows that have no complete trace yet."""
        with self._explained():
            search = partial(
                client_of(self._environment).search_traces,
                locations=[self._run.experiment_id],
                run_id=self._run.run_id,
                include_spans=False,
                max_results=_PAGE,
            )
            page = repeated(search)
            known = {trace.info.trace_id for trace in page}
            while page.token:
                page = repeated(partial(search, page_token=page.token))
                known |= {trace.info.trace_id for trace in page}
        return [row for row in rows if trace_id_of(row, self._run.run_id) not in known]

    def write(self, row: Mapping[str, Any]) -> str:
        """Writes the trace of a clip; returns its id.

        The run is named last, in the same request as the assessments. So `missing` knows a trace only when it
        is complete.
        """
        with self._explained():
            from mlflow.tracing.client import TracingClient

            client_of(self._environment)  # for its limits on waiting
            client = TracingClient(self._environment.mlflow_uri)
            trace_id, now = trace_id_of(row, self._run.run_id), time.time_ns()
            spans = [self._span(row, trace_id, now)]
            info = self._info(row, trace_id, now)
            repeated(partial(client.log_spans, self._run.experiment_id, spans))
            repeated(partial(client.start_trace, info))
        return trace_id

    def _span(self, row: Mapping[str, Any], trace_id: str, now: int) -> Span:
        from mlflow.entities import Span, SpanType
        from mlflow.tracing.constant import SpanAttributeKey

        inputs = {"dataset": row["dataset"], "clip": row["clip_id"], "prompt": self._evaluated.asked(row)}
        if self._evaluated.prompt.system is not None:
            inputs["system"] = self._evaluated.prompt.system
        values = {
            SpanAttributeKey.REQUEST_ID: trace_id,
            SpanAttributeKey.SPAN_TYPE: SpanType.LLM,
            SpanAttributeKey.INPUTS: inputs,
            SpanAttributeKey.OUTPUTS: row["completion"],
        }
        number = bytes.fromhex(trace_id.removeprefix("tr-"))
        return Span.from_dict(
            {
                "trace_id": b64encode(number).decode(),
                "span_id": b64encode(number[:8]).decode(),
                "parent_span_id": "",
                "name": self._evaluated.policy,
                "start_time_unix_nano": now,
                "end_time_unix_nano": now,
                "status": {"code": "OK"},
                "attributes": {name: json.dumps(value) for name, value in values.items()},
            }
        )

    def _info(self, row: Mapping[str, Any], trace_id: str, now: int) -> TraceInfo:
        from mlflow.entities import TraceInfo, TraceLocation, TraceState
        from mlflow.tracing.constant import (
            TRACE_REQUEST_RESPONSE_PREVIEW_MAX_LENGTH_OSS,
            TraceMetadataKey,
            TraceTagKey,
        )

        return TraceInfo(
            trace_id=trace_id,
            trace_location=TraceLocation.from_experiment_id(self._run.experiment_id),
            request_time=now // 1_000_000,
            execution_duration=0,
            state=TraceState.OK,
            request_preview=f"{row['dataset']}/{row['clip_id']}",
            response_preview=_preview(row)[:TRACE_REQUEST_RESPONSE_PREVIEW_MAX_LENGTH_OSS],
            trace_metadata={TraceMetadataKey.SOURCE_RUN: self._run.run_id},
            tags={
                TraceTagKey.TRACE_NAME: self._evaluated.policy,
                POLICY_TAG: self._evaluated.policy,
                DATASET_TAG: row["dataset"],
                CLIP_TAG: row["clip_id"],
            },
            assessments=assess(row, self._run.run_id, trace_id),
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        try:
            with patient_requests():
                yield
        except (MlflowException, NotImplementedError, OSError) as error:
            server = self._environment.mask(self._environment.mlflow_uri or "")
            reason = self._environment.mask(" ".join(str(error).split()))[:300]
            raise StackError(
                f"MLflow at {server}: {reason}; run the same command again, and it goes on where it stopped"
            ) from error


def _preview(row: Mapping[str, Any]) -> str:
    """What MLflow's list of traces shows of a completion: the answer first, as the list cuts long texts."""
    if row["predicted"] is None:
        return str(row["completion"])
    return f"{row['predicted']}: {parse_completion(row['completion']).explanation or 'no explanation'}"
