"""`erv traces` on a real MLflow server: what is written, that nothing is written twice, what it refuses."""

from __future__ import annotations

import json

import pytest

from erv.traces.writing import trace_id_of
from erv.tracking.lock_entries import client_of
from tests.integration.scratch import Scratch

pytestmark = pytest.mark.integration

PIPELINE = """
stages:
  evaluate:
    matrix: {policy: [sft, erv]}
    cmd: python evaluate.py --policy ${item.policy} --predictions eval/${item.policy}/predictions.parquet
    deps: [evaluate.py, "control/${item.policy}.json"]
    outs: ["eval/${item.policy}/predictions.parquet"]
"""
EVALUATE = """
import json
from pathlib import Path
from erv.evaluate.evaluate import write_predictions
from erv.stage import Option, run_stage

def main(arguments, settings, run):
    rows = json.loads(Path(f"control/{arguments.policy}.json").read_text())
    write_predictions(rows, arguments.predictions)

run_stage("evaluate", main, Option("policy"), Option("predictions", Path))
"""
QUESTION = "What does {labels} mean here?"


def row(clip: str, label: str, predicted: str | None, *said: str, dataset: str = "mafw") -> dict:
    """A clip that `embedding` and a chat model read; a word in brackets is an outcome."""
    verdicts = [
        {
            "judge": judge,
            "outcome": text.strip("()") if text.startswith("(") else "named",
            "emotion": None if text.startswith("(") else text,
        }
        for judge, text in zip(("embedding", "openai:m"), said, strict=True)
    ]
    return {
        "dataset": dataset,
        "clip_id": clip,
        "split": "test",
        "label": label,
        "completion": f"<think>Die Stimme bebt: naïve {clip}.</think>\n<answer>{predicted}</answer>",
        "predicted": predicted,
        "judged": verdicts[0]["emotion"],
        "verdicts": verdicts,
        "sentences": 1,
    }


ROWS = [
    row("1", "anger", "anger", "anger", "anger"),
    row("2", "fear", "fear", "sadness", "sadness"),  # contradicts its right answer
    row("3", "fear", "sadness", "sadness", "(silent)"),  # judges disagree
    row("4", "sadness", None, "fear", "fear"),
    row("5", "happy", "angry", "(unreadable)", "(unreadable)", dataset="dfew"),
]


@pytest.fixture(scope="module")
def scratch(stack, tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    scratch = Scratch(tmp_path_factory.mktemp("traces"), stack)
    (scratch.folder / "dvc.yaml").write_text(PIPELINE)
    (scratch.folder / "evaluate.py").write_text(EVALUATE)
    for policy in ("sft", "erv"):
        (scratch.folder / f"control/{policy}.json").write_text(json.dumps(ROWS))
        folder = scratch.folder / "models/policy" / policy
        folder.mkdir(parents=True)
        asked = {"instruction": QUESTION, "system": "Be kind."}
        (folder / "processor_config.json").write_text(json.dumps(asked))
    scratch.python("-m", "dvc", "repro", "-q")
    return scratch


def traces_of(scratch: Scratch, policy: str) -> dict[str, object]:
    """The traces of a policy's run, by clip."""
    client = client_of(scratch.environment)
    run = scratch.runs()[f"evaluate@{policy}"][0]
    found = client.search_traces(locations=[run.info.experiment_id], run_id=run.info.run_id)
    assert len({trace.info.tags["erv.clip"] for trace in found}) == len(found)
    return {trace.info.tags["erv.clip"]: trace for trace in found}


def test_what_a_trace_says(scratch: Scratch) -> None:
    said = scratch.erv("traces", "erv")
    run = scratch.runs()["evaluate@erv"][0]
    page = f"/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/traces"
    assert "erv: 2 of 5 clips chosen, 2 written, 0 were there before\n" in said.stdout
    assert said.stdout.endswith(f"{scratch.environment.mlflow_uri}{page}\n")
    assert "traces of erv: 2/2 clips" in said.stderr
    traces = traces_of(scratch, "erv")
    assert set(traces) == {"2", "3"}

    trace = traces["3"]
    assert trace.info.trace_id == trace_id_of(ROWS[2], run.info.run_id)
    assert trace.info.request_preview == "mafw/3"
    assert trace.info.response_preview == "sadness: Die Stimme bebt: naïve 3."
    assert str(trace.info.state) == "OK"
    assert {name: trace.info.tags[f"erv.{name}"] for name in ("policy", "dataset")} == {
        "policy": "erv",
        "dataset": "mafw",
    }
    (span,) = trace.data.spans
    assert span.inputs["prompt"].startswith("What does anger, disgust, fear, ")
    assert {name: span.inputs[name] for name in ("dataset", "clip", "system")} == {
        "dataset": "mafw",
        "clip": "3",
        "system": "Be kind.",
    }
    assert span.outputs == ROWS[2]["completion"]
    assessed = {item.name: item for item in trace.info.assessments}
    values = {name: item.value for name, item in assessed.items()}
    assert values == {
        "truth": "fear",
        "embedding": "sadness",
        "openai:m": "silent",
        "right": False,
        "consistent": True,
    }
    assert assessed["truth"].expectation is not None
    assert {name: (item.source.source_type, item.source.source_id) for name, item in assessed.items()} == {
        "truth": ("CODE", "erv"),
        "embedding": ("CODE", "embedding"),
        "openai:m": ("LLM_JUDGE", "openai:m"),
        "right": ("CODE", "erv"),
        "consistent": ("CODE", "embedding"),
    }
    assert assessed["right"].rationale == "The truth is fear; the answer is sadness."
    assert assessed["openai:m"].rationale == "No emotion stands out in the explanation."


@pytest.mark.slow
def test_nothing_is_written_twice(scratch: Scratch) -> None:
    """What people have added stays, and a call goes on where the one before stopped."""
    import mlflow
    from mlflow.entities import AssessmentSource

    mine = AssessmentSource("HUMAN", "me")
    scratch.erv("traces", "sft", "--only", "all", "--limit", "2")
    before = traces_of(scratch, "sft")
    assert set(before) == {"3", "5"}, "the panel is split on 3; then by data set"
    mlflow.set_tracking_uri(scratch.environment.mlflow_uri)
    trace_id = before["5"].info.trace_id
    mlflow.log_feedback(trace_id=trace_id, name="heard", value="disgust", source=mine)

    said = scratch.erv("traces", "sft", "--only", "all")
    assert "sft: 5 of 5 clips chosen, 3 written, 2 were there before\n" in said.stdout
    said = scratch.erv("traces", "sft", "--only", "wrong", "--only", "inconsistent")
    assert "sft: 4 of 5 clips chosen, 0 written, 4 were there before\n" in said.stdout
    after = traces_of(scratch, "sft")
    assert set(after) == {"1", "2", "3", "4", "5"}
    assert after["5"].info.request_time == before["5"].info.request_time
    named = sorted(item.name for item in after["5"].info.assessments)
    assert named == ["embedding", "heard", "openai:m", "right", "truth"], "nothing can be consistent here"


def test_a_call_that_ended_between_its_requests(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace without its assessments is completed, and a request that is sent again adds nothing."""
    from mlflow.tracing.client import TracingClient

    from erv.prompts import Prompt
    from erv.traces.evaluated import Evaluated, FoundRun
    from erv.traces.writing import TraceWriter

    run = scratch.runs()["evaluate@erv"][0]
    found = FoundRun(run.info.run_id, run.info.experiment_id)
    writer = TraceWriter(scratch.environment, Evaluated("erv", ROWS, Prompt(), {}), found)
    (first,) = writer.missing(ROWS[:1])
    trace_id = trace_id_of(first, found.run_id)
    client = TracingClient(scratch.environment.mlflow_uri)
    client.log_spans(found.experiment_id, [writer._span(first, trace_id, 1_000_000)])
    assert writer.missing([first]) == [first]
    assert writer.write(first) == writer.write(first) == trace_id
    monkeypatch.setattr("erv.traces.writing._PAGE", 1)
    assert writer.missing(ROWS[:3]) == [], "all pages are read"
    trace = traces_of(scratch, "erv")["1"]
    assert len(trace.data.spans) == 1
    assert len(trace.info.assessments) == 5


def refused(scratch: Scratch, *policies: str) -> str:
    said = scratch.erv("traces", *policies, check=False)
    assert said.returncode == 1
    assert said.stdout == ""
    assert said.stderr.startswith("error: ")
    assert len(said.stderr.splitlines()) == 1
    return said.stderr


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ("r1_omni", "policy 'r1_omni' was not evaluated here: eval/r1_omni/predictions.parquet is missing"),
        ("r2", "policy 'r2' is not in compare.policies of params.yaml, expected some of sft, r1_omni"),
    ],
)
def test_a_policy_that_was_not_evaluated(scratch: Scratch, policy: str, sentence: str) -> None:
    assert refused(scratch, "erv", policy).startswith(f"error: {sentence}")


def test_an_evaluation_without_its_run(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERV_MLFLOW_EXPERIMENT", "another")
    sentence = refused(scratch, "sft", "erv")
    assert "evaluate@sft: no run in experiment 'another' of MLflow at http://127.0.0.1:" in sentence
    assert "run `dvc repro --force --single-item evaluate@sft`\n" in sentence


def test_no_server(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERV_MLFLOW_URI", "")
    assert "no MLflow server is configured; run `erv stack up`" in refused(scratch, "erv")
    monkeypatch.delenv("ERV_MLFLOW_URI")
    file = scratch.environment.stack_file
    before = file.read_text()
    file.write_text(before.replace(str(scratch.environment.mlflow_uri), "http://127.0.0.1:1"))
    try:
        assert "MLflow at http://127.0.0.1:1/health can't be reached" in refused(scratch, "erv")
    finally:
        file.write_text(before)
