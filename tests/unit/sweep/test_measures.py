"""By what trials are compared: validation clips only, the same ones, and what makes a difference to them."""

import dataclasses
import math
from pathlib import Path

import pytest

from erv.curves import write_curves
from erv.errors import SettingsError
from erv.pipeline import PipelineStage
from erv.sweep.graph import Graph, kept_graph, read_graph
from erv.sweep.measures import check_comparable, choose, curve_of, read_curve, varied_stages
from tests.support.paths import ROOT


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


@pytest.fixture(scope="module")
def graph() -> Graph:
    return read_graph(ROOT)


@pytest.mark.parametrize(
    ("name", "metric", "varied"),
    [
        ("grpo@erv", "accuracy", "seed"),
        ("grpo@erv", "accuracy", "ingest.validation_share"),
        ("grpo@erv", "accuracy", "datasets"),
        ("grpo@erv", "accuracy", "roles.train"),
        ("grpo@erv", "accuracy", "extract.missing_audio"),
        ("grpo@erv", "accuracy", "validate.min_seconds"),
        ("grpo@erv", "reward", "seed"),
        ("grpo@erv", "reward", "variants.erv.rewards.explanation"),
        ("grpo@erv", "reward", "train_erv.max_steps"),
        ("grpo@erv", "reward", "distill.validation_share"),
        ("grpo@erv", "reward", "rollouts.policies"),
        ("sft", "loss", "seed"),
        ("sft", "loss", "extract.missing_audio"),
        ("train_erv", "loss", "seed"),
        ("train_erv", "loss", "train_erv.class_weights"),
        ("train_erv", "loss", "distill.validation_share"),
    ],
)
def test_what_decides_the_clips_or_the_measure_must_not_vary(
    graph: Graph, name: str, metric: str, varied: str
) -> None:
    decides, measure = choose(graph.stages, name, metric, "")
    with pytest.raises(SettingsError, match=f"{varied} decides what {metric} is measured on or by"):
        check_comparable(measure, graph, decides, [varied])


@pytest.mark.parametrize("varied", ["sft.max_steps", "rollouts.temperature"])
def test_what_the_verifier_learns_from_must_not_vary(varied: str) -> None:
    stages = (
        stage("sft", outputs=("models/policy/sft",)),
        stage("rollouts@sft", "sft", outputs=("data/rollouts/sft.parquet",)),
        stage("distill", "rollouts@sft", outputs=("data/sentences.parquet",)),
        stage("train_erv", "distill", outputs=("models/verifier",)),
        dataclasses.replace(
            stage("grpo@erv", "sft", "train_erv"), dependencies=("models/policy/sft", "models/verifier")
        ),
    )
    graph = Graph(stages, {"sft.max_steps": ("sft",), "rollouts.temperature": ("rollouts",)}, {})
    name, reward = choose(stages, "grpo", "reward", "")
    with pytest.raises(SettingsError, match=f"{varied} decides what reward is measured on or by"):
        check_comparable(reward, graph, name, [varied])
    check_comparable(choose(stages, "grpo", "accuracy", "")[1], graph, name, [varied])


def test_accuracy_compares_other_rewards(graph: Graph) -> None:
    decides, measure = choose(graph.stages, "grpo@erv", "accuracy", "")
    varied = ["grpo.beta", "variants.erv.rewards.explanation", "train_erv.max_steps", "sft.max_steps"]
    check_comparable(measure, graph, decides, varied)


def test_stages_are_kept_as_they_were(graph: Graph, tmp_path: Path) -> None:
    assert kept_graph(tmp_path) is None
    graph.save(tmp_path)
    assert kept_graph(tmp_path) == graph
    (tmp_path / "stages.json").write_text("[]")
    with pytest.raises(SettingsError, match=r"stages\.json: damaged"):
        kept_graph(tmp_path)


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
    assert choose(STAGES, "train_erv", "", "")[1].value({1: math.nan, 2: 0.5, 3: math.inf}) == 0.5
    assert math.isnan(choose(STAGES, "sft", "", "")[1].value({1: 0.5, 2: math.nan}) or 0.0)
    assert read_curve(tmp_path / "none.csv", "validation_loss") == {}
    assert curve_of(STAGES, "sft") == Path("models/curves/sft.csv")
