"""Profiles: the published numbers, what a switch changes in params.yaml and what it leaves."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from erv.cli import command
from erv.errors import SettingsError
from erv.settings import load_settings
from erv.settings.profile import FOLDER, differences, flat, load_profile, merged, names, use

PAPER = ("paper-0.5b", "paper-7b")


@pytest.fixture
def params(root: Path, tmp_path: Path) -> Path:
    return shutil.copy(root / "params.yaml", tmp_path / "params.yaml")


def test_names_and_an_unknown_one() -> None:
    assert names() == ["demo", "paper-0.5b", "paper-7b", "tiny"]
    with pytest.raises(SettingsError, match="no profile 'paper', expected one of demo"):
        load_profile("paper")


@pytest.mark.parametrize("name", PAPER)
def test_published_settings(name: str, params: Path) -> None:
    settings = merged(load_profile(name), params)
    grpo = settings.grpo
    assert (grpo.num_generations, grpo.beta, grpo.learning_rate) == (4, 0.04, 1e-6)
    assert (grpo.epochs, grpo.max_steps, grpo.max_completion_length) == (2, None, 512)
    assert (grpo.temperature, grpo.loss_type, grpo.scale_rewards) == (1.0, "grpo", "group")
    assert (grpo.semantics, grpo.num_iterations, grpo.freeze_projectors) == ("official", 1, False)
    assert settings.extract.frames == 8
    assert settings.extract.size == {"paper-0.5b": 224, "paper-7b": 384}[name]
    assert (settings.train_erv.thresholds, settings.train_erv.calibration) == (0.1, "none")
    assert settings.evaluate.max_new_tokens == 512
    assert (settings.runtime.device, settings.runtime.dtype) == ("cuda", "bfloat16")
    rewards = {key: [r.name for r in variant.rewards] for key, variant in settings.variants.items()}
    assert rewards["r1_omni"] == ["format", "accuracy"]
    assert rewards["erv"] == ["format", "accuracy", "explanation"]
    assert {r.weight for variant in settings.variants.values() for r in variant.rewards} == {1.0}


@pytest.mark.parametrize("name", names())
def test_arms_differ_in_what_their_names_say_and_in_no_weight(name: str, params: Path) -> None:
    weights: dict[str, set[float]] = {}
    for variant in merged(load_profile(name), params).variants.values():
        for reward in variant.rewards:
            weights.setdefault(reward.name, set()).add(reward.weight)
    assert {len(found) for found in weights.values()} == {1}, weights


@pytest.mark.parametrize("name", PAPER)
def test_each_value_says_where_it_comes_from(name: str) -> None:
    """A line with a value has a comment with a source, or stands below one that has."""
    lines = (FOLDER / f"{name}.yaml").read_text().partition("\nparams:\n")[2].splitlines()
    sources = re.compile(r"published|R1-Omni|HumanOmni|released|our choice|these three|as GRPO")
    below: int | None = None  # the indentation of a key with a comment that covers its contents
    silent = []
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if below is not None and indent > below:
            continue
        below = None
        rest = line.partition(":")[2]
        if sources.search(line):
            below = indent if not rest.split("#")[0].strip() else None
        elif rest.split("#")[0].strip():
            silent.append(line)
    assert not silent


def test_the_demo_is_what_ships_and_takes_back_all_that_others_change(root: Path) -> None:
    assert differences(load_profile("demo"), root / "params.yaml") == []
    changed = {key for name in names() if name != "demo" for key in flat(load_profile(name).params)}
    assert set(flat(load_profile("demo").params)) == changed


def test_there_and_back_is_the_same_file(params: Path) -> None:
    before = params.read_bytes()
    use(load_profile("paper-0.5b"), params)
    use(load_profile("paper-7b"), params)
    assert load_settings(params).sft.lora.rank == 64
    use(load_profile("demo"), params)
    assert params.read_bytes() == before


def test_another_profile_leaves_nothing_behind(params: Path) -> None:
    use(load_profile("paper-0.5b"), params)
    expected = params.read_bytes()
    use(load_profile("demo"), params)
    use(load_profile("tiny"), params)
    assert load_settings(params).train_erv.minimum_f1 == 0.0
    changes = use(load_profile("paper-0.5b"), params)
    assert "train_erv.minimum_f1 0.0 (profile: 0.5)" in map(str, changes)
    assert params.read_bytes() == expected


def without_items(params: Path) -> list[str]:
    """The lines of a file but for the items of lists."""
    return [line for line in params.read_text().splitlines() if not line.lstrip().startswith("- ")]


def test_only_values_change_and_comments_stay(params: Path) -> None:
    before = without_items(params)
    changes = use(load_profile("paper-0.5b"), params)
    after = without_items(params)
    assert len(before) == len(after)
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert len(changed) == len(changes) > 30
    for old, new in changed:
        assert old.split(":")[0] == new.split(":")[0]
        assert old.partition("#")[2] == new.partition("#")[2]
    assert use(load_profile("paper-0.5b"), params) == []
    assert differences(load_profile("paper-0.5b"), params) == []
    # PyYAML and DVC must read numbers where we wrote numbers.
    assert yaml.safe_load(params.read_text())["grpo"]["learning_rate"] == 1e-6


def test_what_would_have_faults_is_not_written(params: Path) -> None:
    text = params.read_text().replace("loss_type: grpo ", "loss_type: grop ")
    params.write_text(text)
    with pytest.raises(SettingsError, match="loss_type"):
        use(load_profile("paper-0.5b"), params)
    assert params.read_text() == text


def test_what_is_a_matter_of_the_machine_may_stay(params: Path) -> None:
    profile = load_profile("paper-7b")
    assert profile.is_adjustable("machine.processes")
    assert not profile.is_adjustable("grpo.beta")
    text = params.read_text()
    params.write_text(text.replace("show_media:\n  - mafw\n  - dfew\n", "show_media: []\n"))
    kept = merged(profile, params, keep_adjusted=True)
    assert kept.runtime.device == "auto"
    assert kept.grpo.beta == 0.04


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(command, ["params", *arguments])
    return result.exit_code, result.output


def test_commands(params: Path) -> None:
    file = ["--file", str(params)]
    code, said = invoke(*file, "--profile", "paper-0.5b")
    assert code == 1
    assert "grpo.beta 0.02 (profile: 0.04)\n" in said
    assert "runtime.device auto (profile: cuda)  # a matter of the machine" in said
    code, said = invoke(*file, "use", "paper-0.5b")
    assert code == 0
    assert "grpo.epochs: null -> 2\n" in said
    assert "`erv doctor --profile paper-0.5b`" in said
    code, said = invoke(*file, "--profile", "paper-0.5b")
    assert (code, "the setting of paper-0.5b" in said) == (0, True)
    assert "is paper-0.5b already" in invoke(*file, "use", "paper-0.5b")[1]
    assert invoke(*file)[1] == f"{params}: no faults\n"
    assert invoke(*file, "--profile", "demo", "use", "demo")[0] == 2
    assert invoke("check", *file)[1] == f"{params}: no faults\n"
    assert "seed: " in invoke("--file", "none.yaml", "show", *file, "seed")[1]


@pytest.mark.parametrize("name", ["params", "doctor"])
def test_help_lists_all_profiles(name: str) -> None:
    said = CliRunner().invoke(command, [name, "--help"]).output
    assert [profile for profile in names() if profile not in said] == []
