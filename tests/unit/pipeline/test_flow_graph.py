from erv.pipeline import PipelineStage
from flows.graph import StageReport, has_room, held_up, most_urgent_first
from flows.summary import how_many, stage_table


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


def test_one_stage_is_not_side_by_side_with_another():
    assert how_many(1, 2) == "1 stage"
    assert how_many(5, 1) == "5 stages"
    assert how_many(5, 2) == "5 stages, up to 2 side by side"


def test_the_summary_names_the_failed_stages_that_one_needs():
    stages = [
        stage("grpo@a"),
        stage("grpo@b"),
        stage("evaluate@a", "grpo@a"),
        stage("report", "evaluate@a", "grpo@b"),
        stage("apart"),
    ]
    reports = {"grpo@a": StageReport("grpo@a", "failed", 1.0), "grpo@b": StageReport("grpo@b", "failed", 1.0)}
    for item in stages[2:]:
        reports[item.name] = StageReport(item.name, "not run", message=held_up(item, reports))
    assert [line for line in stage_table(list(reports.values())).splitlines() if "not run" in line] == [
        "evaluate@a  not run    needs grpo@a",
        "report      not run    needs grpo@a, grpo@b",
        "apart       not run",
        "5 stages: 2 failed, 3 not run",
    ]


def test_what_runs_elsewhere_takes_no_room_here():
    running = [None, "gpu", "gpu", "gpu"]
    assert has_room(None, running, workers=2, limits={"gpu": 4})
    assert not has_room(None, [None, *running], workers=2, limits={"gpu": 4})
    assert has_room("gpu", running, workers=1, limits={"gpu": 4})
    assert not has_room("gpu", ["gpu", *running], workers=1, limits={"gpu": 4}), "others get their turn"
    assert has_room("cpu", running, workers=1, limits={"gpu": 3, "cpu": 1})
