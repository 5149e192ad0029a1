"""GRPO with TRL's other losses, several updates per generation, and activations that are computed twice."""

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file

from erv.errors import SettingsError
from erv.policies import load_policy
from erv.policies.common.generate import generate_completions
from erv.settings import LossType, load_settings, parse_settings
from erv.shards import ShardReader
from erv.training.grpo.grpo import total_steps, train_grpo
from tests.support.runtime import MACHINE, RUNTIME
from tests.support.tiny_grpo import (
    LORA,
    letter_e,
    many_letters,
    settings,
    text,
    training_rows,
    write_cold_start,
    write_shards,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("variants")
    write_cold_start(folder / "sft")
    write_shards(folder / "mafw")
    return folder


def train(
    folder: Path, output: Path, stop_in: int | None = None, **changes: Any
) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    reader = {"mafw": ShardReader(folder / "mafw")}
    seen: list[dict[str, float]] = []

    def on_metrics(metrics: dict[str, float], step: int) -> None:
        seen.append(metrics)
        if step == stop_in:
            raise KeyboardInterrupt

    train_grpo(
        folder / "sft",
        training_rows(reader),
        reader,
        [("letters", many_letters, 1.0), ("e", letter_e, 0.5)],
        settings(**changes),
        output=output,
        checkpoints=output.with_name(f"{output.name}-checkpoints"),
        on_metrics=on_metrics,
        seed=0,
        runtime=RUNTIME,
        machine=MACHINE,
    )
    return load_file(output / "model.safetensors"), seen


@pytest.mark.parametrize("loss_type", get_args(LossType))
def test_every_loss_of_trl_trains(folder: Path, tmp_path: Path, loss_type: str) -> None:
    sampling = "sequence" if loss_type == "luspo" else "token"
    weights, seen = train(
        folder, tmp_path / "out", max_steps=1, loss_type=loss_type, importance_sampling=sampling
    )
    cold = load_file(folder / "sft" / "model.safetensors")
    assert any(not torch.equal(value, weights[name]) for name, value in cold.items())
    assert seen[0]["grad_norm"] > 0


@pytest.mark.slow
def test_several_updates_on_the_same_completions(folder: Path, tmp_path: Path) -> None:
    whole, seen = train(folder, tmp_path / "whole", max_steps=4, num_iterations=2)
    lengths = [metrics["completion_length"] for metrics in seen if "completion_length" in metrics]
    assert len(lengths) == 2  # two generations for four updates
    assert [metrics["kl"] > 0 for metrics in seen] == [False, True, True, True]
    with pytest.raises(KeyboardInterrupt):
        train(folder, tmp_path / "resumed", stop_in=3, max_steps=4, num_iterations=2)
    resumed, rest = train(folder, tmp_path / "resumed", max_steps=4, num_iterations=2)
    assert len(rest) == 2
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


@pytest.mark.slow
@pytest.mark.parametrize("lora", [settings().lora, LORA], ids=["full", "lora"])
def test_activations_computed_twice_change_nothing(folder: Path, tmp_path: Path, lora: Any) -> None:
    changes: dict[str, Any] = {"max_steps": 1, "lora": lora}
    kept, one = train(folder, tmp_path / "kept", **changes)
    again, two = train(folder, tmp_path / "again", gradient_checkpointing=True, **changes)
    assert two[0]["grad_norm"] == pytest.approx(one[0]["grad_norm"], rel=1e-4)
    assert two[0]["reward"] == one[0]["reward"]
    moved = 0.0
    for name, value in kept.items():
        close = torch.isclose(value, again[name], atol=1e-5, rtol=0)
        assert close.float().mean() > 0.98, name  # Adam's first step is little more than a sign
        moved = max(moved, float((value - load_file(folder / "sft" / "model.safetensors")[name]).abs().max()))
    assert moved > 1e-4


def test_epochs_are_passes_over_the_clips() -> None:
    two = settings(max_steps=None, epochs=2, num_iterations=2)
    assert total_steps(two, clips=11) == 2 * (11 // 4) * 2
    assert total_steps(settings(max_steps=7), clips=11) == 7


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epochs": 2}, "grpo: give exactly one of max_steps and epochs"),
        ({"max_steps": None}, "grpo: give exactly one of max_steps and epochs"),
        (
            {"num_iterations": 8},
            "machine.grpo.save_steps (20) must be a multiple of grpo.num_iterations (8)",
        ),
        (
            {"num_iterations": 4, "max_steps": 82},
            "max_steps (82) must be a multiple of num_iterations (4)",
        ),
        ({"loss_type": "luspo"}, "grpo: loss_type luspo needs importance_sampling: sequence, found token"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], sentence: str) -> None:
    raw = load_settings().model_dump(by_alias=True, mode="json")
    raw["grpo"] |= changes
    with pytest.raises(SettingsError) as caught:
        parse_settings(raw)
    assert sentence in str(caught.value)


def test_four_bits_train_adapters_alone() -> None:
    raw = load_settings().model_dump(by_alias=True, mode="json")
    raw["grpo"]["lora"]["quantize"] = "nf4"
    with pytest.raises(SettingsError, match=r"grpo\.lora: quantize is nf4, which trains adapters only"):
        parse_settings(raw)


def test_adapters_and_shards_are_refused_together() -> None:
    raw = load_settings().model_dump(by_alias=True, mode="json")
    raw["sft"]["lora"]["enabled"] = True
    raw["machine"]["accelerate"] = "fsdp"
    with pytest.raises(SettingsError, match=r"sft\.lora\.enabled is true and machine\.accelerate fsdp"):
        parse_settings(raw)
    raw["machine"]["accelerate"] = "ddp"
    parse_settings(raw)


def test_the_first_completion_of_a_clip_is_the_one_that_an_evaluation_would_get(
    folder: Path, tmp_path: Path
) -> None:
    reader = {"mafw": ShardReader(folder / "mafw")}
    seen: list[tuple[str, str]] = []

    def recorded(completions: list[Any], clip_id: list[str], **columns: Any) -> list[float]:
        seen.extend(zip(clip_id, map(text, completions), strict=True))
        return [float(place % 2) for place in range(len(completions))]

    chosen = settings(max_steps=1, greedy_rollout=True, temperature=5.0)
    train_grpo(
        folder / "sft",
        training_rows(reader),
        reader,
        [("recorded", recorded, 1.0)],
        chosen,
        output=tmp_path / "out",
        checkpoints=tmp_path / "checkpoints",
        on_metrics=lambda metrics, step: None,
        seed=0,
        runtime=RUNTIME,
        machine=MACHINE,
    )
    firsts, others = (
        seen[:: chosen.num_generations],
        [item for item in seen if item not in seen[:: chosen.num_generations]],
    )
    expected = generate_completions(
        load_policy(folder / "sft"),
        [reader["mafw"].get(clip) for clip, _ in firsts],
        batch_size=8,
        max_new_tokens=chosen.max_completion_length,
        temperature=0.0,
        seed=0,
    )
    assert {clip: said.strip() for clip, said in firsts} == expected
    assert len(others) >= len(seen) // 2


def test_vllm_samples_all_completions() -> None:
    with pytest.raises(ValueError, match="greedy_rollout needs generation: transformers"):
        settings(greedy_rollout=True, generation="vllm")
