"""Without a reasoning set: a base that explains already is the cold start as it is."""

from __future__ import annotations

import shutil
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import pytest

import stages.sft
from erv.errors import TrainingError
from erv.pinning import pin
from erv.policies import load_policy
from erv.policies.common.policy import stored_prompt
from erv.settings import load_settings
from erv.training.sft.sft import build_examples
from tests.support.paths import ROOT
from tests.support.sft_policy import ROWS, read_clips, write_base, write_clips


def test_it_is_copied_with_the_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "data/prompts", "data/prompts")
    base = write_base(tmp_path / "tree/policy")
    pin("base", str(base.parent), None).save(tmp_path / "base.lock.json")
    given = load_settings(ROOT / "params.yaml")
    settings = given.model_copy(
        update={
            "sft": given.sft.model_copy(update={"max_steps": 0}),
            "policy": given.policy.model_copy(update={"prompt": "data/prompts/labels.txt"}),
        }
    )
    arguments = Namespace(
        base=tmp_path / "base.lock.json",
        policy=tmp_path / "sft",
        manifest=tmp_path / "none.parquet",  # not read: there need not be any explanation
        shards=tmp_path / "none",
        exclusions=tmp_path / "none.json",
        curves=tmp_path / "curves.csv",
    )
    stages.sft.main(arguments, settings, MagicMock())
    weights = "model.safetensors"
    assert (tmp_path / "sft" / weights).read_bytes() == (base / weights).read_bytes()
    assert stored_prompt(tmp_path / "sft").fields == {"labels", "subtitle"}


def test_clips_without_explanations_can_not_be_learned_from(tmp_path: Path) -> None:
    write_clips(tmp_path)
    bare = [replace(row, completion=None) for row in ROWS]
    policy = load_policy(write_base(tmp_path / "policy"))
    with pytest.raises(
        TrainingError, match=r"completion to learn from; name a reasoning set .*sft\.max_steps: 0"
    ):
        build_examples(policy, bare, read_clips(tmp_path))
