"""The arithmetic of `benchmarks/demo.py`."""

from __future__ import annotations

from benchmarks.demo import Span, alone, critical_path, replay
from erv.pipeline import PipelineStage


def stage(name: str, *upstream: str) -> PipelineStage:
    return PipelineStage(name, upstream, "", (), ())


GRAPH = [
    stage("data"),
    stage("sft", "data"),
    stage("erv", "data"),
    stage("grpo", "erv", "sft"),
    stage("other"),
]
SECONDS = {"data": 2.0, "sft": 5.0, "erv": 3.0, "grpo": 1.0, "other": 4.0}


def test_the_critical_path_is_the_longest_chain_of_inputs() -> None:
    assert critical_path(GRAPH, SECONDS) == ["data", "sft", "grpo"]


def test_a_replay_fills_the_slots_with_what_is_ready_and_most_urgent() -> None:
    spans = {span.name: (span.start, span.end) for span in replay(GRAPH, SECONDS)}
    assert spans == {
        "data": (0.0, 2.0),
        "other": (0.0, 4.0),
        "sft": (2.0, 7.0),
        "erv": (4.0, 7.0),
        "grpo": (7.0, 8.0),
    }


def test_a_stage_is_alone_while_no_other_runs() -> None:
    spans = [Span("data", 0, 2), Span("sft", 2, 7), Span("erv", 4, 6), Span("grpo", 8, 9)]
    assert alone(spans) == {"data": 2, "sft": 3, "grpo": 1}
