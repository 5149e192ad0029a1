"""How the parameters that a sweep varies are written, and what values they get."""

from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution, IntDistribution

from erv.errors import SettingsError
from erv.files import parse_yaml
from erv.settings.overrides import overridden
from erv.settings.settings import parse_settings
from erv.sweep.space import parse_dimension, parse_space, read_space
from tests.support.paths import ROOT

PARAMETERS = ROOT / "params.yaml"


def test_a_range_of_numbers() -> None:
    found = parse_dimension("grpo.beta=0.01:0.2:log")
    assert (found.name, found.low, found.high, found.log, found.whole) == (
        "grpo.beta",
        0.01,
        0.2,
        True,
        False,
    )
    assert found.extremes() == ["grpo.beta=0.01", "grpo.beta=0.2"]


def test_a_range_of_whole_numbers() -> None:
    found = parse_dimension("sft.batch_size=4:64:log")
    assert found.whole
    assert found.override(16) == "sft.batch_size=16"
    assert not parse_dimension("sft.warmup_share=0.0:1").whole


def test_choices() -> None:
    found = parse_dimension("grpo.loss_type=grpo, dapo,grpo")
    assert found.choices == ("grpo", "dapo")
    assert found.extremes() == ["grpo.loss_type=grpo", "grpo.loss_type=dapo"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("grpo.beta", "expected NAME=LOW:HIGH"),
        ("grpo.beta=0.1", "one value leaves nothing to choose from"),
        ("grpo.beta=a,", "one value leaves nothing"),
        ("grpo.beta=0.2:0.1", "the first end must be below the second"),
        ("grpo.beta=0:0.1:log", "only numbers above 0"),
        ("grpo.beta=0.1:0.2:lin", "one value leaves nothing"),
        ("=1:2", "expected NAME=LOW:HIGH"),
    ],
)
def test_what_is_no_dimension(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        parse_dimension(text)


def test_each_parameter_once_and_one_at_least() -> None:
    with pytest.raises(SettingsError, match=r"grpo\.beta is varied twice"):
        parse_space(["grpo.beta=0.1:0.2", "grpo.beta=0.3:0.4"])
    with pytest.raises(SettingsError, match="needs parameters to vary"):
        parse_space([])


@pytest.mark.parametrize("value", [5e-05, 0.0712345678, 1.0, 3.2e-4, 123456.7])
def test_what_is_tried_is_read_back_as_the_same_number(value: float) -> None:
    override = parse_dimension("sft.learning_rate=1e-7:1000000.0").override(value)
    content = overridden(PARAMETERS, None, [override]).content
    found = parse_settings(parse_yaml(content.encode()), "params.yaml").sft.learning_rate
    assert found == pytest.approx(value, rel=1e-5)
    assert found == float(override.partition("=")[2])


def test_ends_that_params_yaml_can_not_have_are_refused() -> None:
    parse_space(["grpo.beta=0.01:0.2"]).check(PARAMETERS)
    with pytest.raises(SettingsError, match=r"grpo\.beta"):
        parse_space(["grpo.beta=-1.0:0.2"]).check(PARAMETERS)
    with pytest.raises(SettingsError, match="there is no parameter grpo"):
        parse_space(["grpo.bta=0.01:0.2"]).check(PARAMETERS)
    with pytest.raises(SettingsError, match="both varied and set"):
        parse_space(["grpo.beta=0.01:0.2"]).check(PARAMETERS, ["grpo.beta=0.1"])


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(
        "grpo.beta: 0.01:0.2:log\ngrpo.loss_type: [grpo, dapo]\ngrpo.greedy_rollout: [true, false]\n"
    )
    assert read_space(file) == [
        "grpo.beta=0.01:0.2:log",
        "grpo.loss_type=grpo,dapo",
        "grpo.greedy_rollout=true,false",
    ]
    file.write_text("sft.batch_size: 1:20\n")  # which YAML reads as 80
    with pytest.raises(SettingsError, match=r"sft\.batch_size is the number 80 to YAML.*in quotes"):
        read_space(file)
    with pytest.raises(SettingsError, match="can't be read"):
        read_space(tmp_path / "none.yaml")


def test_items_of_a_list_in_a_file_stay_what_they_are(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(
        "grpo.max_steps: [null, 2]\ngrpo.beta: [0.123456789, 1.0e-7]\n"
        "roles.train: [[mafw, dfew], [mafw]]\npolicy.prompt: ['a,b', c]\n"
    )
    lines = read_space(file)
    assert lines[0] == "grpo.max_steps=null,2"
    assert parse_dimension(lines[1]).choices == ("0.123456789", "1e-07")
    assert parse_dimension(lines[2]).choices == ("[mafw,dfew]", "[mafw]")
    assert parse_dimension(lines[3]).choices == ('"a,b"', "c")
    found = overridden(PARAMETERS, None, ["roles.train=[mafw,dfew]", "grpo.max_steps=null", "grpo.epochs=2"])
    assert parse_settings(parse_yaml(found.content.encode()), "").roles.train == ("mafw", "dfew")
    for wrong in ("roles.train=[mafw,[dfew", "roles.train=[mafw],,[dfew]"):
        with pytest.raises(SettingsError, match=r"not closed, or a choice is empty"):
            parse_dimension(wrong)


def test_ends_of_a_narrow_range_stay_apart() -> None:
    found = parse_dimension("grpo.beta=0.9999999:1.0")
    assert found.extremes() == ["grpo.beta=0.9999999", "grpo.beta=1.0"]


def test_whole_numbers_are_those_of_the_parameter() -> None:
    assert parse_dimension("sft.batch_size=1e1:1e2").distribution == IntDistribution(10, 100)
    assert parse_dimension("sft.batch_size=16:64.0").distribution == IntDistribution(16, 64)
    assert parse_dimension("grpo.max_steps=40:80").whole
    assert parse_dimension("grpo.beta=0:1").distribution == FloatDistribution(0.0, 1.0)
    assert parse_dimension("variants.erv.rewards.explanation=0:1").distribution == FloatDistribution(0.0, 1.0)
    with pytest.raises(SettingsError, match=r"sft\.batch_size has whole numbers only, and 16\.5 is none"):
        parse_dimension("sft.batch_size=16.5:64")
