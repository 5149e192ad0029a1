"""Explanations that the cold start samples, from the policy to the sentences that distill reads."""

from __future__ import annotations

import functools
from argparse import Namespace
from pathlib import Path
from unittest.mock import MagicMock

import pytest

import stages.rollouts
from erv.distill.corpus import read_rollouts
from erv.errors import DataError
from erv.exclusions import Excluded, write_exclusions
from erv.manifest import write_manifest
from erv.rollouts.rollouts import sample_explanations, write_rollouts
from erv.settings import RolloutSettings, load_settings
from erv.shards import ShardReader
from tests.support.runtime import RUNTIME
from tests.support.sft_policy import ROWS, SETTINGS, train, write_base, write_clips

ROLLOUTS = RolloutSettings(policies=("sft",), per_clip=2, temperature=0.5, max_new_tokens=40, batch_size=4)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardReader:
    return write_clips(tmp_path_factory.mktemp("shards"))["reasoning"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base") / "policy")


@pytest.fixture(scope="module")
def policy(base: Path, shards: ShardReader, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cold start that has learned to explain."""
    folder = tmp_path_factory.mktemp("trained")
    settings = SETTINGS.model_copy(update={"max_steps": 120, "learning_rate": 1e-2})
    train(base, {"reasoning": shards}, folder / "checkpoints", settings).save(folder / "policy")
    return folder / "policy"


@pytest.mark.slow
def test_they_are_explanations_of_the_clips_that_there_are(policy: Path, shards: ShardReader) -> None:
    wanted = [item.clip_id for item in ROWS[:3]]
    sample = functools.partial(sample_explanations, family="humanomni", runtime=RUNTIME)
    found = sample(policy, [*wanted, "in quarantine"], shards, ROLLOUTS, seed=0)
    assert [clip_id for clip_id, _ in found] == [clip_id for clip_id in wanted for _ in range(2)]
    texts = [text for _, text in found if text is not None]
    assert len(texts) >= 3
    assert all("think" not in text for text in texts)
    assert sample(policy, wanted, shards, ROLLOUTS, seed=0) == found
    hot = ROLLOUTS.model_copy(update={"temperature": 1.2})
    assert sample(policy, wanted, shards, hot, seed=0) != sample(policy, wanted, shards, hot, seed=1)


def test_distill_reads_the_explanations_and_counts_completions_without_one(tmp_path: Path) -> None:
    write_rollouts(
        [("b", "One. Two."), ("b", None), ("a", "Three."), ("a", "And.")], tmp_path / "sft.parquet"
    )
    assert read_rollouts(tmp_path / "sft.parquet") == (
        [("a", "And."), ("a", "Three."), ("b", "One. Two.")],
        1,
    )
    write_rollouts([], tmp_path / "none.parquet")
    assert read_rollouts(tmp_path / "none.parquet") == ([], 0)
    with pytest.raises(DataError, match="not found; run `dvc repro rollouts` first"):
        read_rollouts(tmp_path / "absent.parquet")


def test_the_stage_leaves_excluded_clips_out_and_repeats_itself(
    base: Path, root: Path, tmp_path: Path
) -> None:
    # A policy that has learned nothing: none of its completions has an explanation.
    rollouts = ROLLOUTS.model_copy(update={"per_clip": 1, "max_new_tokens": 4})
    settings = load_settings(root / "params.yaml").model_copy(update={"rollouts": rollouts})
    write_clips(tmp_path)
    write_manifest(ROWS, tmp_path / "manifest.parquet")
    write_exclusions([Excluded("reasoning", ROWS[0].clip_id)], tmp_path / "exclusions.json")
    arguments = Namespace(
        policy=base,
        manifest=tmp_path / "manifest.parquet",
        exclusions=tmp_path / "exclusions.json",
        shards=tmp_path / "reasoning",
    )
    run = MagicMock()
    stages.rollouts.main(Namespace(**vars(arguments), rollouts=tmp_path / "sft.parquet"), settings, run)
    assert read_rollouts(tmp_path / "sft.parquet") == ([], 9)
    run.log_metrics.assert_called_once_with({"rollouts/sampled": 9.0, "rollouts/without_explanation": 9.0})
    stages.rollouts.main(Namespace(**vars(arguments), rollouts=tmp_path / "again.parquet"), settings, run)
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "sft.parquet").read_bytes()
