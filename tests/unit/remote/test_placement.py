"""Where stages run: what the file says, and what a run was given, which counts before it."""

from __future__ import annotations

import re

import pytest
import yaml

from erv.errors import SettingsError
from erv.pipeline import read_stages
from erv.remote.placement import places, read_placement, with_placement
from erv.settings import Settings, load_settings
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings(ROOT / "params.yaml")


def test_what_a_run_was_given() -> None:
    assert read_placement([]) == {}
    assert read_placement(["grpo@erv=big", "sft=gpu"]) == {"grpo@erv": "big", "sft": "gpu"}


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["grpo"], "placement 'grpo': expected STAGE=POOL, such as grpo=gpu"),
        (["=gpu"], "placement '=gpu': expected STAGE=POOL"),
        (["grpo="], "placement 'grpo=': expected STAGE=POOL"),
        (
            ["grpo=../x"],
            "placement 'grpo=../x': '../x' can't be the name of a work pool; expected 1 to 64 letters",
        ),
        (
            ["grpo=GPU pool"],
            "'GPU pool' can't be the name of a work pool; expected 1 to 64 letters, digits, `.`",
        ),
        (["grpo=a", "grpo=b"], "placement: grpo is given twice"),
    ],
)
def test_what_is_refused(texts: list[str], said: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(said)):
        read_placement(texts)


def test_it_counts_before_the_file(settings: Settings) -> None:
    def merged(own: dict[str, str], given: dict[str, str]) -> dict[str, str]:
        machine = settings.machine.model_copy(update={"placement": own})
        before = settings.model_copy(update={"machine": machine})
        return with_placement(before, given).machine.placement

    assert merged({"sft": "a"}, {}) == {"sft": "a"}
    assert merged({"sft": "a", "grpo": "a"}, {"grpo": "b"}) == {"sft": "a", "grpo": "b"}
    assert merged({"grpo@erv": "a"}, {"grpo": "b"}) == {"grpo": "b"}, "a step counts for all its stages"
    assert merged({"grpo": "a"}, {"grpo@erv": "b"}) == {"grpo": "a", "grpo@erv": "b"}


def test_the_deployment_sends_stages_of_the_pipeline(settings: Settings) -> None:
    """Its default is checked like anybody's wish: a step that is renamed is named wrongly there."""
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    (parameters,) = [item["parameters"] for item in deployments if item["name"] == "distributed"]
    given = read_placement(parameters["placement"])
    sent = places(read_stages(ROOT), with_placement(settings, given).machine.placement)
    assert {name.partition("@")[0] for name in sent} == {"sft", "train_erv", "grpo"}
    assert set(sent.values()) == {"gpu"}


def test_a_stage_knows_its_pool_as_its_run_does(settings: Settings) -> None:
    """`erv doctor` and a stage ask the settings, a run asks with all stages: one rule."""
    stages = read_stages(ROOT)
    placed = with_placement(settings, {"grpo": "gpu", "grpo@erv": "big", "evaluate": "gpu"})
    found = places(stages, placed.machine.placement)
    assert {
        stage.name: placed.machine.pool_of(stage.name) for stage in stages if stage.name in found
    } == found
    assert found["grpo@erv"] == "big"
    assert {placed.machine.pool_of(stage.name) for stage in stages if stage.name not in found} == {None}
