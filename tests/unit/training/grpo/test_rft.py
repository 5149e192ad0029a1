"""Rejection sampling: what is sampled, what is kept, what is learned, and how an interrupted run goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from erv.errors import DataError, TrainingError
from erv.policies import load_policy
from erv.prompts import Prompt
from erv.rewards import build_rewards
from erv.settings import GrpoSettings, RewardSettings, load_settings
from erv.shards import ShardReader
from erv.training.grpo import rft
from erv.training.grpo.grpo import build_rows, order_rows
from erv.training.grpo.rft import Rollout, accept, measure, read_rollouts, rollout_file, train_rft
from tests.support.runtime import MACHINE, RUNTIME
from tests.support.sft_policy import (
    ROWS,
    SETTINGS,
    largest_difference,
    train,
    weights,
    write_base,
    write_clips,
)

REWARDS = build_rewards(
    [RewardSettings(name=name, weight=1.0) for name in ("format", "accuracy")], None, "strict"
)
STEPS, PROMPTS, GENERATIONS = 3, 4, 3


@pytest.fixture(scope="module")
def settings() -> GrpoSettings:
    shipped = load_settings("params.yaml").grpo.model_dump()
    changes = {
        "max_steps": STEPS,
        "prompts_per_step": PROMPTS,
        "num_generations": GENERATIONS,
        "max_completion_length": 40,
        "learning_rate": 1e-3,
    }
    return GrpoSettings.model_validate(shipped | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rft")


@pytest.fixture(scope="module")
def shards(folder: Path) -> dict[str, ShardReader]:
    return write_clips(folder)


@pytest.fixture(scope="module")
def base(folder: Path) -> Path:
    return write_base(folder / "base")


@pytest.fixture(scope="module")
def cold_start(base: Path, folder: Path, shards: dict[str, ShardReader]) -> Path:
    """It writes well-formed completions, and doesn't always see what is felt."""
    longer = SETTINGS.model_copy(update={"max_steps": 60, "learning_rate": 1e-2})
    train(base, shards, folder / "sft", longer, output=folder / "policy")
    return folder / "policy"


@pytest.fixture(scope="module")
def rows(shards: dict[str, ShardReader]) -> list[dict[str, Any]]:
    return build_rows([ROWS], shards)


class Run:
    """A call of `train_rft` with its metrics."""

    def __init__(self, settings: GrpoSettings, *inputs: Any, out: Path, passes_at: float = 1.0) -> None:
        self.metrics: list[tuple[int, dict[str, float]]] = []
        self.checkpoints = out / "checkpoints"
        self.policy = train_rft(
            *inputs,
            settings,
            passes_at=passes_at,
            output=out / "policy",
            checkpoints=self.checkpoints,
            on_metrics=lambda metrics, step: self.metrics.append((step, metrics)),
            seed=0,
            runtime=RUNTIME,
            machine=MACHINE,
        )

    def rollouts(self) -> list[Rollout]:
        files = sorted((self.checkpoints / rft.ROLLOUTS).iterdir())
        return [rollout for path in files for rollout in read_rollouts(path)]


@pytest.fixture(scope="module")
def whole(
    cold_start: Path,
    rows: list[dict[str, Any]],
    shards: dict[str, ShardReader],
    settings: GrpoSettings,
    folder: Path,
) -> Run:
    """An uninterrupted run."""
    return Run(settings, cold_start, rows, shards, REWARDS, out=folder / "whole")


@pytest.mark.slow
def test_as_many_are_sampled_and_trained_as_in_grpo(
    whole: Run, rows: list[dict[str, Any]], settings: GrpoSettings
) -> None:
    rollouts = whole.rollouts()
    order = order_rows(rows, STEPS, PROMPTS, seed=0)
    assert [item.clip for item in rollouts] == [row["clip"] for row in order for _ in range(GENERATIONS)]
    assert len({item.completion for item in rollouts}) > 3, "sampling, not greedy"
    step, measured = whole.metrics[0]
    assert step == 0
    assert measured["rollouts/sampled"] == measured["rollouts/trained"] == STEPS * PROMPTS * GENERATIONS


def test_what_passes_is_learned(whole: Run, cold_start: Path, rows: list[dict[str, Any]]) -> None:
    rollouts = whole.rollouts()
    accepted = accept(rollouts, 1.0)
    assert 0 < len(accepted) < len(rollouts)
    assert all(f"<answer>{item.label}</answer>" in item.completion for item in accepted)
    measured = whole.metrics[0][1]
    assert measured["rollouts/accepted"] == len(accepted)
    passing = sum(item.passes(1.0) for item in rollouts)
    assert measured["rollouts/passing_share"] == passing / len(rollouts)
    policy = load_policy(cold_start)
    examples = rft.build_examples(policy, accepted, rows)
    tokenizer = policy.processor.tokenizer
    for example, item in zip(examples, accepted, strict=True):
        assert example["key"] == item.clip
        assert tokenizer.decode(example["completion"], skip_special_tokens=True) == item.completion
    before, after = weights(policy), weights(load_policy(whole.policy))
    moved = {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"language_model", "weight"}, "grpo.freeze_projectors holds here too; the head is tied"


def test_each_clip_is_asked_as_in_grpo(
    cold_start: Path, shards: dict[str, ShardReader], rows: list[dict[str, Any]]
) -> None:
    policy = load_policy(cold_start)
    processor = policy.processor
    silent = {f"{name}/{clip_id}" for name, reader in shards.items() for clip_id in reader.silent}
    assert rft._prompts(policy, rows) == {
        row["clip"]: processor.prompt_ids(audio=row["clip"] not in silent) for row in rows
    }
    prompt = Prompt("Which of {labels}?\nShe says: {subtitle}\nAnswer.", "You know feelings.")
    clips = [replace(ROWS[0], subtitle="Oh!"), *ROWS[1:]]
    asked = build_rows([clips], shards, prompt)
    first = next(row for row in asked if row["clip_id"] == ROWS[0].clip_id)
    said = {"clip": first["clip"], "label": "fear", "completion": "Oh.", "rewards": {}}
    (example,) = rft.build_examples(policy, [Rollout(**said)], asked)
    text = processor.tokenizer.decode(example["prompt"])
    assert text.startswith("<|im_start|>system\nYou know feelings.<|im_end|>\n<|im_start|>user\n")
    assert "Which of anger, disgust, fear," in text
    assert "\nShe says: Oh!\nAnswer.<|im_end|>\n<|im_start|>assistant\n" in text


def test_a_run_that_is_stopped_goes_on(
    whole: Run,
    cold_start: Path,
    rows: list[dict[str, Any]],
    shards: dict[str, ShardReader],
    settings: GrpoSettings,
    tmp_path: Path,
) -> None:
    name, reward, weight = REWARDS[0]
    calls: list[int] = []

    def dies(**columns: Any) -> Any:
        calls.append(len(columns["completions"]))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return reward(**columns)

    inputs = (cold_start, rows, shards)
    with pytest.raises(KeyboardInterrupt):
        Run(settings, *inputs, [(name, dies, weight), *REWARDS[1:]], out=tmp_path)
    folder = tmp_path / "checkpoints" / rft.ROLLOUTS
    assert [path.name for path in folder.iterdir()] == [rollout_file(folder, 0).name]
    resumed = Run(settings, *inputs, [(name, dies, weight), *REWARDS[1:]], out=tmp_path)
    assert calls == [PROMPTS * GENERATIONS] * (STEPS + 1), "the first generation was scored again"
    assert resumed.rollouts() == whole.rollouts()
    after = (weights(load_policy(run.policy)) for run in (whole, resumed))
    assert largest_difference(*after) == 0.0


def test_damaged_rollouts_are_sampled_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = rollout_file(tmp_path, 0)
    item = {
        "clip": "a/1",
        "label": "anger",
        "completion": "Grrr ü",
        "rewards": {"format": 1.0},
    }
    rft.write_rollouts([item], path)
    assert rft._is_kept(path)
    assert read_rollouts(path) == [Rollout(**item)]
    content = path.read_text(encoding="utf-8")
    for damaged in (content.replace("Grrr", "Grrs"), content.replace("1.0", "0.0"), content[:20], "[]", ""):
        path.write_text(damaged, encoding="utf-8")
        with pytest.raises(DataError, match=str(path)):
            read_rollouts(path)
        caplog.clear()
        assert not rft._is_kept(path)
        assert "kept rollouts are damaged, sampling them again" in caplog.text


def test_nothing_passes(
    cold_start: Path,
    rows: list[dict[str, Any]],
    shards: dict[str, ShardReader],
    settings: GrpoSettings,
    tmp_path: Path,
) -> None:
    with pytest.raises(
        TrainingError, match=r"none of 36 completions .* \(format, accuracy\) at 1\.5 or more"
    ):
        Run(settings, cold_start, rows, shards, REWARDS, out=tmp_path, passes_at=1.5)
    assert not (tmp_path / "policy").exists()


def test_one_emotion_has_one_name_in_all_data_sets() -> None:
    rows = [
        {"clip": "mafw/1", "solution": "<answer>happiness</answer>", "dataset": "mafw", "prompt": []},
        {"clip": "dfew/1", "solution": "<answer>happy</answer>", "dataset": "dfew", "prompt": []},
        {"clip": "dfew/2", "solution": "<answer>angry</answer>", "dataset": "dfew", "prompt": []},
    ]
    scored = rft._score(rows, ["joy"] * 3, [])
    measured = measure([Rollout(**item) for item in scored], [], 1.0)
    shares = sorted(name for name in measured if name.startswith("rollouts/passing_share/"))
    assert shares == ["rollouts/passing_share/anger", "rollouts/passing_share/happiness"]


def rollout(clip: str, label: str, completion: str, *rewards: float | None) -> Rollout:
    return Rollout(clip, label, completion, {str(number): value for number, value in enumerate(rewards)})


def test_what_is_kept_and_counted() -> None:
    rollouts = [
        rollout("mafw/2", "anger", "b", 1.0, 0.75),
        rollout("mafw/2", "anger", "b", 1.0, 0.75),
        rollout("mafw/2", "anger", "a", 1.0, 0.7),
        rollout("mafw/1", "fear", "b", 1.0, 1.0),
        rollout("mafw/3", "fear", "c", 0.7, None),
        rollout("mafw/4", "contempt", "c", 0.0, 1.0),
    ]
    accepted = accept(rollouts, 0.75)
    assert [(item.clip, item.completion) for item in accepted] == [("mafw/1", "b"), ("mafw/2", "b")]
    assert measure(rollouts, accepted, 0.75) == {
        "rollouts/sampled": 6.0,
        "rollouts/accepted": 2.0,
        "rollouts/accepted_clips": 2.0,
        "rollouts/passing_share": 0.5,
        "rollouts/passing_share/anger": 2 / 3,
        "rollouts/passing_share/contempt": 0.0,
        "rollouts/passing_share/fear": 0.5,
    }


def test_a_reward_that_can_not_score_a_completion_has_no_say() -> None:
    """The verifier doesn't know awe: without this, rft would learn nothing of such clips, and not say so."""
    rollouts = [
        rollout("moods/1", "awe", "a", 1.0, None),
        rollout("moods/1", "awe", "b", 0.0, None),
        rollout("moods/2", "awe", "c", None, None),
        rollout("moods/3", "fear", "d", 1.0, 1.0),
    ]
    accepted = accept(rollouts, 1.0)
    assert [item.completion for item in accepted] == ["a", "d"]
    measured = measure(rollouts, accepted, 1.0)
    assert measured["rollouts/accepted_partly_scored"] == 1.0
    assert measured["rollouts/passing_share/awe"] == 1 / 3
