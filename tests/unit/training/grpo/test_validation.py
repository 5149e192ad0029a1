"""Held-out clips in GRPO: what is measured, and that the result is the same without."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from erv.errors import DataError
from erv.rewards import accuracy_reward
from erv.shards import ShardReader
from erv.training.grpo.grpo import build_rows, train_grpo
from erv.training.grpo.validation import Validation, drawn, measured
from tests.support.runtime import RUNTIME, machine
from tests.support.tiny_grpo import (
    CLIPS,
    letter_e,
    manifest_row,
    many_letters,
    settings,
    write_cold_start,
    write_shards,
)

REWARDS = [("letters", many_letters, 1.0), ("e", letter_e, 0.5)]


@pytest.fixture(scope="module")
def cold_start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cold_start(tmp_path_factory.mktemp("policies") / "sft")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ShardReader]:
    return {"mafw": ShardReader(write_shards(tmp_path_factory.mktemp("shards") / "mafw"))}


def split(shards: dict[str, ShardReader], name: str) -> list[dict[str, Any]]:
    """Six clips to learn from, the last two held out."""
    clips = [manifest_row(clip, "train" if clip in CLIPS[:6] else "validation") for clip in CLIPS]
    return build_rows([clips], shards, split=name)


def train(
    cold_start: Path,
    shards: dict[str, ShardReader],
    output: Path,
    *,
    steps: int | None,
    stop_in: int | None = None,
    **changes: Any,
) -> list[tuple[int, dict[str, float]]]:
    seen: list[tuple[int, dict[str, float]]] = []

    def note(values: dict[str, float], step: int) -> None:
        seen.append((step, values))
        if step == stop_in and "loss" in values:
            raise KeyboardInterrupt

    held_out = split(shards, "validation")
    validation = Validation(held_out, REWARDS, partial(accuracy_reward, semantics="strict"), steps or 1)
    train_grpo(
        cold_start,
        split(shards, "train"),
        shards,
        REWARDS,
        settings(**{"max_steps": 4, **changes}),
        output=output,
        checkpoints=output.parent / f"{output.name}-checkpoints",
        on_metrics=note,
        seed=0,
        runtime=RUNTIME,
        machine=machine(save_steps=2),
        validation=None if steps is None else validation,
    )
    return [(step, values) for step, values in seen if any(name.startswith("validation/") for name in values)]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("changes", [{}, {"num_iterations": 2, "greedy_rollout": True}])
def test_the_policy_is_the_same_with_and_without(
    cold_start: Path, shards: dict[str, ShardReader], tmp_path: Path, changes: dict[str, Any]
) -> None:
    assert train(cold_start, shards, tmp_path / "without", steps=None, **changes) == []
    seen = train(cold_start, shards, tmp_path / "with", steps=1, **changes)
    assert content(tmp_path / "with") == content(tmp_path / "without")
    assert [step for step, _ in seen] == [1, 2, 3, 4]


def test_every_so_many_steps_and_the_last_are_measured(
    cold_start: Path, shards: dict[str, ShardReader], tmp_path: Path
) -> None:
    seen = train(cold_start, shards, tmp_path / "out", steps=3)
    assert [step for step, _ in seen] == [3, 4]
    assert set(seen[0][1]) == {
        "validation/accuracy",
        "validation/reward",
        "validation/reward/letters",
        "validation/reward/e",
    }


def test_a_training_that_resumes_ends_with_the_same_measurement(
    cold_start: Path, shards: dict[str, ShardReader], tmp_path: Path
) -> None:
    whole = train(cold_start, shards, tmp_path / "whole", steps=2)
    with pytest.raises(KeyboardInterrupt):
        train(cold_start, shards, tmp_path / "out", steps=2, stop_in=3)
    assert train(cold_start, shards, tmp_path / "out", steps=2) == whole[1:]
    # All steps are done: nothing is left but to measure.
    assert train(cold_start, shards, tmp_path / "out", steps=2) == whole[1:]


def test_means_of_what_could_be_scored() -> None:
    rows = [
        {"prompt": [], "clip": f"mafw/{n}", "solution": f"<answer>{label}</answer>", "dataset": "mafw"}
        for n, label in enumerate(("happiness", "anger"))
    ]

    def one_of_two(completions: list[Any], **columns: Any) -> list[float | None]:
        return [1.0, None]

    found = measured(
        Validation(
            rows,
            [("mine", one_of_two, 2.0), ("never", lambda completions, **_: [None, None], 1.0)],
            partial(accuracy_reward, semantics="strict"),
            1,
        ),
        ["<think>He smiles.</think>\n<answer>happiness</answer>"] * 2,
    )
    assert found == {
        "validation/accuracy": 0.5,
        "validation/reward": 2.0,
        "validation/reward/mine": 1.0,
    }


def test_the_same_clips_are_drawn_whatever_their_order() -> None:
    rows = [{"clip": f"mafw/{number}"} for number in range(20)]
    chosen = drawn(rows, 5)
    assert len(chosen) == 5
    assert drawn(rows[::-1], 5) == chosen[::-1]
    assert drawn(rows, 99) == rows


def test_no_validation_clips_are_told() -> None:
    with pytest.raises(DataError, match=r"ingest\.validation_share"):
        drawn([], 5)
