"""GRPO with credit by sentence on a very small policy: the loss gets it, packed or not, and a resumed run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from erv.checkpoints import latest_checkpoint
from erv.policies import load_policy
from erv.prompts import DIRECT_BEGINNING
from erv.rewards.credit import Credited
from erv.settings import MachineSettings
from erv.shards import ShardReader
from erv.training.common.clip_features import ClipFeatures, policy_encoder
from erv.training.common.throughput import TIMED
from erv.training.grpo import grpo
from erv.training.grpo.checked_reward import CheckedReward
from erv.training.grpo.grpo import order_rows, train_grpo
from erv.training.grpo.samples import SampleTable
from erv.training.grpo.trainer import OmniGRPOTrainer
from tests.support.runtime import RUNTIME, machine
from tests.support.tiny_grpo import (
    Halves,
    settings,
    text,
    training_rows,
    write_cold_start,
    write_shards,
)


@pytest.fixture(scope="module")
def cold_start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cold_start(tmp_path_factory.mktemp("policies") / "sft")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ShardReader]:
    return {"mafw": ShardReader(write_shards(tmp_path_factory.mktemp("shards") / "mafw"))}


def make_trainer(
    cold_start: Path,
    shards: dict[str, ShardReader],
    output: Path,
    here: MachineSettings | None = None,
    **options: Any,
) -> OmniGRPOTrainer:
    policy = load_policy(cold_start)
    policy.model.config._name_or_path = str(cold_start)
    chosen = settings(credit="sentence", beta=0.0)
    rewards = [("halves", Halves(), 0.5)]
    return OmniGRPOTrainer(
        model=policy.model,
        args=grpo.grpo_config(chosen, 2, rewards, policy, output, 0, RUNTIME, here or machine()),
        reward_funcs=[CheckedReward("halves", Halves(), credited=True)],
        train_dataset=order_rows(training_rows(shards), 2, 4, 0),
        processing_class=policy.processor.tokenizer,
        clip_features=ClipFeatures(policy_encoder(policy), shards),
        question=policy.processor.question_inputs(),
        credit_sentences=True,
        **options,
    )


@pytest.mark.parametrize("share", [True, False], ids=["packed", "plain"])
def test_the_gradient_is_each_tokens_advantage_times_that_of_its_log_probability(
    cold_start: Path, shards: dict[str, ShardReader], tmp_path: Path, share: bool
) -> None:
    trainer = make_trainer(cold_start, shards, tmp_path, share_prompts=share)
    trainer.model.train()
    # Every eighth token ends a completion, so that they differ in length.
    tokenizer = trainer.processing_class
    trainer.eos_token_ids = [tokenizer.eos_token_id, *range(9, len(tokenizer), 8)]
    trainer.generation_config.eos_token_id = trainer.eos_token_ids
    rows = [row for row in training_rows(shards)[:4] for _ in range(2)]
    batch = trainer._generate_and_score_completions(rows)
    advantages, mask = batch["advantages"], batch["completion_mask"]
    assert advantages.shape == mask.shape
    assert len(set(mask.sum(1).tolist())) > 2
    spread = (advantages.amax(1) - advantages.masked_fill(mask == 0, torch.inf).amin(1)).tolist()
    assert sum(value > 0.1 for value in spread) >= 4, spread  # many completions have two halves that differ
    trainer.current_gradient_accumulation_steps = 1

    loss = trainer._compute_loss(trainer.model, batch)
    loss.backward()
    trained = dict(trainer.model.named_parameters())
    got = {name: value.grad.clone() for name, value in trained.items() if value.grad is not None}
    trainer.model.zero_grad()

    with trainer._rows_of_clips(batch["clip_index"]):
        log_probs, _, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model,
            torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
            torch.cat([batch["prompt_mask"], mask], dim=1),
            mask.shape[1],
        )
    per_token = log_probs * advantages.detach() * mask
    expected = -(per_token.sum(1) / mask.sum(1)).mean()
    expected.backward()
    assert got
    for name, gradient in got.items():
        torch.testing.assert_close(gradient, trained[name].grad, atol=1e-6, rtol=1e-4, msg=name)


Train = Callable[..., tuple[Path, list[dict[str, float]], list[SampleTable]]]


@pytest.fixture
def train(cold_start: Path, shards: dict[str, ShardReader], tmp_path: Path) -> Train:
    def run(name: str, stop_in: int | None = None, rows_per_pass: int | None = None, **changes: Any) -> Any:
        seen: list[dict[str, float]] = []
        tables: list[SampleTable] = []

        def on_metrics(metrics: dict[str, float], step: int) -> None:
            seen.append({key: value for key, value in metrics.items() if key not in TIMED})
            if step == stop_in:
                raise KeyboardInterrupt

        folder = train_grpo(
            cold_start,
            training_rows(shards),
            shards,
            [("halves", Halves(), 1.0)],
            settings(**{"credit": "sentence", "max_steps": 4} | changes),
            output=tmp_path / name,
            checkpoints=tmp_path / f"{name}-checkpoints",
            on_metrics=on_metrics,
            seed=0,
            runtime=RUNTIME,
            machine=machine(rows_per_pass=rows_per_pass),
            on_samples=tables.append,
        )
        return folder, seen, tables

    return run


def test_a_policy_may_be_trained_to_answer_without_thinking(
    cold_start: Path, shards: dict[str, ShardReader], tmp_path: Path
) -> None:
    """Rewards see the given beginning, credits count from it, and the folder says how it answers."""
    seen: list[str] = []

    class Rewarded(Halves):
        def credited(self, *, completions: list[Any], **columns: Any) -> list[Credited]:
            seen.extend(map(text, completions))
            return super().credited(completions=completions, **columns)

    tables: list[SampleTable] = []
    folder = train_grpo(
        cold_start,
        training_rows(shards),
        shards,
        [("halves", Rewarded(), 1.0)],
        settings(credit="sentence", max_steps=1),
        output=tmp_path / "direct",
        checkpoints=tmp_path / "checkpoints",
        on_metrics=lambda metrics, step: None,
        seed=0,
        runtime=RUNTIME,
        machine=machine(sample_steps=1),
        on_samples=tables.append,
        thinks=False,
    )
    assert len(seen) == 8
    assert all(said.startswith(DIRECT_BEGINNING) for said in seen)
    assert load_policy(folder).begins == DIRECT_BEGINNING
    for sample in tables[-1].samples:  # nothing that was given is credited
        assert all(part in sample.completion[len(DIRECT_BEGINNING) :] for part, _ in sample.credits or ())


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_resumed_run_is_the_uninterrupted_run_bit_for_bit(train: Train, tmp_path: Path) -> None:
    several = {"num_iterations": 2}
    whole, seen, _ = train("whole", **several)
    with pytest.raises(KeyboardInterrupt):
        train("resumed", stop_in=3, **several)
    newest = latest_checkpoint(tmp_path / "resumed-checkpoints")
    assert newest is not None
    assert newest.name == "checkpoint-2"
    resumed, rest, _ = train("resumed", **several)
    assert rest == seen[2:]
    assert weights(resumed) == weights(whole)


@pytest.mark.slow
def test_credit_changes_what_is_learned_and_passes_do_not(train: Train) -> None:
    by_sentence, seen, tables = train("sentence", max_steps=2)
    plain, _, without = train("plain", max_steps=2, credit="completion")
    assert weights(by_sentence) != weights(plain)
    _, passed, _ = train("passes", max_steps=2, rows_per_pass=2)
    for key in ("reward", "grad_norm", "kl"):
        assert passed[0][key] == pytest.approx(seen[0][key], rel=1e-4), key

    assert "credits" not in without[-1].columns
    table = tables[-1]
    for sample in table.samples:
        assert sample.credits is not None
        said = [part for part, _ in sample.credits]
        assert all(part in sample.completion for part in said)
    halves = next(s.credits for s in table.samples if s.credits and len(s.credits) == 2)
    assert halves[0][1] > halves[1][1]
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["credits"].startswith("[")
    assert "<th>of the tokens in</th>" in table.html()
