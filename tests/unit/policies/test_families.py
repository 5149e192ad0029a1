"""A family is chosen by `policy.family`: no other is imported, and no checkpoint of another is taken."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import get_args
from unittest.mock import MagicMock

import pytest

import stages.evaluate
import stages.grpo
import stages.rollouts
import stages.sft
from erv import policies
from erv.errors import TrainingError
from erv.exclusions import write_exclusions
from erv.pinning import pin
from erv.policies import load_policy
from erv.policies.common.families import FAMILIES, check_family, family_of
from erv.sample.tiny_policy import build_tiny_policy
from erv.settings import Settings, load_settings
from erv.settings.policy import PolicySettings
from erv.shards import ShardWriter
from tests.support.sizes import SMALLEST

WRONG = (
    r"a checkpoint of the family qwen_omni \(model_type qwen2_5_omni\), but policy\.family is humanomni;"
    r" set policy\.family: qwen_omni, or use a checkpoint of humanomni"
)


@pytest.fixture
def settings(root: Path) -> Settings:
    return load_settings(root / "params.yaml")


@pytest.fixture
def wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A policy folder of the family that the parameters don't name, in an empty workspace."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "tree" / "policy"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2_5_omni"}))
    return folder


def test_each_family_is_a_folder_that_the_parameters_know() -> None:
    (room,) = policies.__path__
    folders = {path.parent.name for path in Path(room).glob("*/__init__.py")} - {"common"}
    assert folders == set(FAMILIES) == set(get_args(PolicySettings.model_fields["family"].annotation))
    kinds = [kind for kinds in FAMILIES.values() for kind in kinds]
    assert len(kinds) == len(set(kinds)), "two families read the same model_type"


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_no_other_family_is_imported(family: str) -> None:
    program = (
        "import sys\nimport erv.policies\n"
        "assert 'torch' not in sys.modules, 'the checks before a run ask for families too'\n"
        "import erv.policies.common.generate\n"
        "from erv.policies.common.families import FAMILIES, family_module\n"
        "def loaded(): return [f for f in FAMILIES if f'erv.policies.{f}' in sys.modules]\n"
        "assert loaded() == [], loaded()\n"
        "family_module(sys.argv[1]).load\n"
        "assert loaded() == [sys.argv[1]], loaded()\n"
    )
    subprocess.run([sys.executable, "-c", program, family], check=True)


def test_loading_takes_the_family_of_the_folder_or_refuses_it(tmp_path: Path, wrong: Path) -> None:
    policy = policies.Policy(*build_tiny_policy(["a b"], 0, SMALLEST))
    policy.save(tmp_path / "policy")
    for family in (None, "humanomni"):
        assert type(load_policy(tmp_path / "policy", family=family).model) is type(policy.model)
    with pytest.raises(TrainingError, match=r"a checkpoint of the family humanomni .* is qwen_omni; set"):
        load_policy(tmp_path / "policy", family="qwen_omni")
    with pytest.raises(TrainingError, match=WRONG):
        load_policy(wrong, family="humanomni")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"model_type": "qwen2"}',
            r"model_type 'qwen2' is not a policy that sees and hears \(known: humano",
        ),
        ("{}", r"model_type None is not a policy"),
        ("[]", r"config\.json: not a model's configuration \(expected a JSON object\)"),
        ("{", r"config\.json: not a model's configuration \(Expecting"),
    ],
)
def test_a_folder_of_no_family(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "config.json").write_text(content)
    for refused in (lambda: load_policy(tmp_path), lambda: check_family(tmp_path, "humanomni")):
        with pytest.raises(TrainingError, match=message):
            refused()
    assert family_of({"model_type": "HumanOmni_qwen2"}, "released") == "humanomni"


# --- every stage that loads a policy refuses one of another family ---


def test_sft_refuses_it(wrong: Path, settings: Settings, tmp_path: Path) -> None:
    lock = tmp_path / "base.lock.json"
    pin("base", str(wrong.parent), None).save(lock)
    exclusions = tmp_path / "exclusions.json"
    write_exclusions([], exclusions)
    arguments = Namespace(
        base=lock,
        manifest=lock,
        shards=tmp_path / "tree",
        exclusions=exclusions,
        policy=tmp_path / "out",
    )
    with pytest.raises(TrainingError, match=WRONG):
        stages.sft.main(arguments, settings, MagicMock())


def test_rollouts_refuse_it(
    wrong: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ShardWriter(tmp_path / "shards", clips_per_shard=1):
        pass
    monkeypatch.setattr("erv.manifest.read_manifest", lambda path: [])
    exclusions = tmp_path / "exclusions.json"
    write_exclusions([], exclusions)
    arguments = Namespace(
        manifest=wrong, shards=tmp_path / "shards", exclusions=exclusions, policy=wrong, rollouts=wrong
    )
    with pytest.raises(TrainingError, match=WRONG):
        stages.rollouts.main(arguments, settings, MagicMock())


def test_grpo_refuses_it_before_anything_else(wrong: Path, settings: Settings) -> None:
    with pytest.raises(TrainingError, match=WRONG):
        stages.grpo.main(Namespace(cold_start=wrong), settings, MagicMock())


def test_evaluate_refuses_it(wrong: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.evaluate._judges", lambda *_: ([], []))
    with pytest.raises(TrainingError, match=WRONG):
        stages.evaluate.main(Namespace(policy=wrong), settings, MagicMock())
