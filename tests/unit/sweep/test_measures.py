"""By what trials are compared: validation clips only, the same ones, and what makes a difference to them."""

from pathlib import Path

import pytest

from erv.curves import write_curves
from erv.errors import SettingsError
from erv.pipeline import PipelineStage
from erv.sweep.measures import check_comparable, choose, curve_of, read_curve, varied_stages


def stage(name: str, *upstream: str, outputs: tuple[str, ...] = ()) -> PipelineStage:
    return PipelineStage(name, upstream, "python", (), outputs)


STAGES = (
    stage("ingest@mafw"),
    stage("sft", "ingest@mafw", outputs=("models/curves/sft.csv", "models/policy/sft")),
    stage("train_erv"),
    stage("grpo@erv", "sft", "train_erv"),
    stage("evaluate@erv", "grpo@erv"),
)


def test_the_usual_metric_of_each_stage() -> None:
    assert choose(STAGES, "grpo", "", "")[0] == "grpo@erv"
    assert choose(STAGES, "grpo@erv", "", "")[1].series == "validation/accuracy"
    assert choose(STAGES, "grpo@erv", "reward", "")[1].series == "validation/reward"
    assert choose(STAGES, "sft", "", "")[1].direction == "minimize"
    assert choose(STAGES, "sft", "", "maximize")[1].direction == "maximize"


def test_test_clips_decide_nothing() -> None:
    with pytest.raises(SettingsError, match=r"evaluate@erv measures nothing on validation clips"):
        choose(STAGES, "evaluate@erv", "", "")
    with pytest.raises(SettingsError, match="sft has no metric 'accuracy'; expected loss"):
        choose(STAGES, "sft", "accuracy", "")


@pytest.mark.parametrize(
    ("name", "metric", "varied"),
    [
        ("grpo@erv", "accuracy", "ingest.validation_share"),
        ("grpo@erv", "accuracy", "datasets"),
        ("grpo@erv", "reward", "variants.erv.rewards.explanation"),
        ("grpo@erv", "reward", "train_erv.max_steps"),
        ("train_erv", "loss", "train_erv.class_weights"),
        ("train_erv", "loss", "distill.validation_share"),
    ],
)
def test_what_decides_the_clips_or_the_measure_must_not_vary(name: str, metric: str, varied: str) -> None:
    with pytest.raises(SettingsError, match=f"{varied} decides what {metric} is measured on or by"):
        check_comparable(choose(STAGES, name, metric, "")[1], [varied])


def test_accuracy_compares_other_rewards() -> None:
    measure = choose(STAGES, "grpo@erv", "accuracy", "")[1]
    check_comparable(measure, ["grpo.beta", "variants.erv.rewards.explanation", "train_erv.max_steps"])


def test_trials_run_what_the_parameters_touch_and_what_follows() -> None:
    assert varied_stages(STAGES, "grpo@erv", {"grpo.beta": ["grpo"]}) == (
        ["grpo@erv"],
        ["ingest@mafw", "sft", "train_erv"],
    )
    assert varied_stages(STAGES, "grpo@erv", {"sft.max_steps": ["sft"]})[0] == ["sft", "grpo@erv"]
    with pytest.raises(SettingsError, match=r"evaluate\.x makes no difference to grpo@erv"):
        varied_stages(STAGES, "grpo@erv", {"evaluate.x": ["evaluate"]})


def test_values_of_a_curve(tmp_path: Path) -> None:
    path = tmp_path / "sft.csv"
    write_curves({(2, "validation_loss"): 0.5, (4, "validation_loss"): 0.7, (1, "loss"): 3.0}, path)
    points = read_curve(path, "validation_loss")
    assert points == {2: 0.5, 4: 0.7}
    assert choose(STAGES, "sft", "", "")[1].value(points) == 0.7, "the last policy is the one that is kept"
    assert choose(STAGES, "train_erv", "", "")[1].value(points) == 0.5, (
        "the best verifier is the one that is kept"
    )
    assert choose(STAGES, "sft", "", "")[1].value({}) is None
    assert read_curve(tmp_path / "none.csv", "validation_loss") == {}
    assert curve_of(STAGES, "sft") == Path("models/curves/sft.csv")
