from erv.pipeline import PipelineStage
from flows.graph import most_urgent_first


def stage(name, *upstream):
    return PipelineStage(name, tuple(upstream), "true", (), ())


def test_the_longest_chain_goes_first():
    stages = [
        stage("ingest@a"),
        stage("ingest@b"),
        stage("extract@a", "ingest@a"),
        stage("sft", "ingest@b"),
        stage("grpo", "extract@a", "sft", "verifier"),
        stage("evaluate@sft", "sft"),
        stage("evaluate@erv", "grpo"),
    ]
    names = [item.name for item in most_urgent_first(stages)]
    assert names == ["ingest@a", "ingest@b", "extract@a", "sft", "grpo", "evaluate@erv", "evaluate@sft"]
    longer = [stage("ingest@c"), stage("train", "ingest@c"), stage("tune", "train"), *stages]
    longer[-3] = stage("grpo", "extract@a", "sft", "tune")
    names = [item.name for item in most_urgent_first(longer)]
    assert names[:2] == ["ingest@c", "train"]
    assert names[4] == "tune", "extract@a and sft have as long a chain behind them, and a shorter one before"


def test_a_selection_ignores_what_is_not_in_it():
    stages = [stage("a"), stage("c", "b")]
    assert most_urgent_first(stages) == stages
