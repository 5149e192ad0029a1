"""Feedback as traces on a real MLflow server: written once, complete, and told again when it changes."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from erv.app.feedback import Feedback, LineRefused, Opinion, latest
from erv.app.traces import EXPERIMENT, send, trace_id_of
from erv.environment import Environment
from erv.errors import StackError
from erv.tracking.lock_entries import client_of
from tests.unit.app.test_feedback import GIVEN

pytestmark = pytest.mark.integration


@pytest.fixture
def environment(stack: Environment, tmp_path: Path) -> Environment:
    return dataclasses.replace(stack, workspace=tmp_path, mlflow_experiment=tmp_path.name)


def traces(environment: Environment) -> list:
    client = client_of(environment)
    experiment = client.get_experiment_by_name(f"{environment.mlflow_experiment}{EXPERIMENT}")
    return list(client.search_traces(locations=[experiment.experiment_id], include_spans=True))


def test_an_answer_has_one_trace_with_what_was_said(environment: Environment, tmp_path: Path) -> None:
    feedback = Feedback(tmp_path / "app", partial(send, environment))
    feedback.add(GIVEN, Opinion("up", preferred=True, beside="a2"))
    feedback.add(replace(GIVEN, id="a2"), Opinion("down", emotion="fear", explanation="He steps back."))
    assert feedback.tell()
    for line in latest(tmp_path / "app"):
        send(environment, line)  # as after an answer of MLflow that was lost
    found = {trace.info.trace_id: trace for trace in traces(environment)}
    first, second = latest(tmp_path / "app")
    assert set(found) == {trace_id_of(first), trace_id_of(second)}

    def said(trace_id: str) -> dict:
        return {
            one.name: (one.value, str(one.source.source_type)) for one in found[trace_id].info.assessments
        }

    assert said(trace_id_of(first)) == {"helpful": (True, "HUMAN"), "preferred": (True, "HUMAN")}
    assert said(trace_id_of(second)) == {
        "helpful": (False, "HUMAN"),
        "truth": ("fear", "HUMAN"),
        "explanation": ("He steps back.", "HUMAN"),
    }
    trace = found[trace_id_of(first)]
    assert trace.info.tags["erv.bundle"] == GIVEN.version.digest
    (span,) = trace.data.spans
    assert span.outputs == GIVEN.done.completion


def test_what_is_said_later_replaces_what_was_said(environment: Environment, tmp_path: Path) -> None:
    feedback = Feedback(tmp_path / "app", partial(send, environment))

    def known() -> dict:
        (trace,) = traces(environment)
        found = [(one.name, one.value) for one in trace.info.assessments if one.valid is not False]
        assert len(found) == len(dict(found)), f"told twice: {found}"
        return dict(found)

    for opinion, said in (
        (Opinion("up"), {"helpful": True}),
        (Opinion("down", emotion="fear"), {"helpful": False, "truth": "fear"}),
        (Opinion("down", emotion="disgust"), {"helpful": False, "truth": "disgust"}),
        (Opinion(preferred=False), {"preferred": False}),
        (Opinion(), {}),
    ):
        feedback.add(replace(GIVEN, id="later"), opinion)
        assert feedback.tell()
        assert known() == said


def test_what_others_say_in_mlflow_stays(environment: Environment, tmp_path: Path) -> None:
    from mlflow.entities import AssessmentSource, AssessmentSourceType
    from mlflow.entities import Feedback as Assessed
    from mlflow.tracing.client import TracingClient

    feedback = Feedback(tmp_path / "app", partial(send, environment))
    feedback.add(replace(GIVEN, id="others"), Opinion("up"))
    assert feedback.tell()
    (trace,) = traces(environment)
    ann = AssessmentSource(AssessmentSourceType.HUMAN, "ann")
    TracingClient(environment.mlflow_uri).log_assessment(
        trace.info.trace_id, Assessed(name="helpful", value=False, source=ann)
    )
    feedback.add(replace(GIVEN, id="others"), Opinion())
    assert feedback.tell()
    (trace,) = traces(environment)
    assert [(one.name, one.value, one.source.source_id) for one in trace.info.assessments] == [
        ("helpful", False, "ann")
    ]


def test_an_mlflow_that_is_away_is_told_later(environment: Environment, tmp_path: Path) -> None:
    away = dataclasses.replace(environment, mlflow_uri="http://127.0.0.1:9")
    Feedback(tmp_path / "app").add(replace(GIVEN, id="away"), Opinion("up"))
    with pytest.raises(StackError, match=r"MLflow at http://127\.0\.0\.1:9") as error:
        send(away, latest(tmp_path / "app")[0])
    assert not isinstance(error.value, LineRefused)
    assert Feedback(tmp_path / "app", partial(send, environment)).tell()
    assert len(traces(environment)) == 1


def test_what_mlflow_refuses_is_told_from_an_mlflow_that_is_away(
    environment: Environment, tmp_path: Path
) -> None:
    feedback = Feedback(tmp_path / "app", partial(send, environment))
    feedback.add(replace(GIVEN, id="taken"), Opinion("up"))
    assert feedback.tell()
    client = client_of(environment)
    experiment = client.get_experiment_by_name(f"{environment.mlflow_experiment}{EXPERIMENT}")
    client.delete_experiment(experiment.experiment_id)
    with pytest.raises(LineRefused, match=r"MLflow at http://127\.0\.0\.1:\d+: .*active"):
        send(environment, latest(tmp_path / "app")[0])
