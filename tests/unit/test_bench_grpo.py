"""The benchmark of the GRPO step: its ways are one computation, and its figures mean what they say."""

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.grpo_flops import Language, Work, largest, peak_of
from benchmarks.grpo_measured import PARTS, MeasuredTrainer, Seen, Stopwatch
from benchmarks.grpo_sizes import DATASET, SIZES, Size, build_policy, write_clips
from benchmarks.grpo_ways import agree, step
from benchmarks.grpo_worker import load_trainer, prompts_of, search, seconds_of, settings_for
from erv.determinism import seed_everything
from erv.policies import load_policy
from erv.shards import ShardReader
from tests.support.sizes import SMALLEST

PROMPTS, GROUP, COMPLETION = 2, 3, 6
SIZE = Size(
    replace(SMALLEST, mels=32, vocabulary=400),
    prompts=PROMPTS,
    completion=COMPLETION,
    changes={"text_config": {"vocab_size": 700}},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    build_policy(SIZE).save(folder / "policy")
    write_clips(folder / DATASET, SIZE, 2 * PROMPTS)
    return folder


def trainer_of(way: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> MeasuredTrainer:
    monkeypatch.setitem(SIZES, "tiny", SIZE)
    grpo, runtime = settings_for("tiny", GROUP, 2, "cpu", "float32")
    seed_everything(0, 1)
    return load_trainer(way, folder / "policy", folder / DATASET, grpo, runtime)


def test_ways_are_one_computation(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of("erv", folder, monkeypatch)
    prompts = prompts_of(trainer, 0, PROMPTS)
    _, first = step(trainer, prompts)
    assert len(first.log_probs["policy"]) == PROMPTS * GROUP
    assert any(bool(value.any()) for value in first.gradients.values())
    for way in ("before", "reencoding", "released"):
        _, other = step(trainer_of(way, folder, monkeypatch), prompts, replay=first.completions)
        gaps = agree(first, other)
        assert max(gaps.values()) < 1e-4, (way, gaps)


def test_another_computation_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of("erv", folder, monkeypatch)
    prompts = prompts_of(trainer, 0, PROMPTS)
    _, first = step(trainer, prompts)
    other = trainer_of("released", folder, monkeypatch)
    with torch.no_grad():
        other.model.lm_head.weight[5] += 0.1
    gaps = agree(first, step(other, prompts, replay=first.completions)[1])
    assert gaps["policy"] > 1e-3
    assert gaps["reference"] < 1e-4
    with pytest.raises(ValueError, match="different completions"):
        agree(first, replace(first, completions=first.completions[1:]))
    still = replace(first, gradients={name: 0 * value for name, value in first.gradients.items()})
    with pytest.raises(ValueError, match="no gradient"):
        agree(still, still)


# What one step runs the towers on: clips once; rows in generation and in both scorings; clips in generation
# and rows in both scorings.
@pytest.mark.parametrize(
    ("way", "clips"),
    [
        ("erv", PROMPTS),
        ("before", PROMPTS),
        ("reencoding", 3 * PROMPTS * GROUP),
        ("released", PROMPTS + 2 * PROMPTS * GROUP),
    ],
)
def test_ways_run_the_towers_as_often_as_they_say(
    way: str, clips: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(way, folder, monkeypatch)
    seen: Counter[str] = Counter()
    for model in (trainer.model, trainer.ref_model):
        inner = trainer._inner(model)
        inner.audio_tower.register_forward_hook(
            lambda module, inputs, outputs: seen.update(sound=inputs[0].shape[0])
        )
        inner.vision_tower.register_forward_hook(
            lambda module, inputs, outputs: seen.update(frames=inputs[0].shape[0])
        )
    watch, found = step(trainer, prompts_of(trainer, 0, PROMPTS))
    assert seen == {"sound": clips, "frames": clips * SIZE.policy.num_frames}
    assert [len(ids) for ids in found.completions] == [COMPLETION] * PROMPTS * GROUP
    row = seconds_of(watch, "cpu")
    assert row["cpu"] == pytest.approx(sum(row["parts"].values()))
    assert all(row["parts"][part] > 0 for part in PARTS)


def test_a_step_trains(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of("released", folder, monkeypatch)
    before = {name: value.clone() for name, value in trainer.model.get_decoder().named_parameters()}
    step(trainer, prompts_of(trainer, 0, PROMPTS))
    changed = [
        name
        for name, value in trainer.model.get_decoder().named_parameters()
        if (value != before[name]).any()
    ]
    assert len(changed) == len(before)
    assert all(value.grad is None for value in trainer.model.parameters())


def test_a_part_within_a_part_counts_for_itself() -> None:
    watch = Stopwatch()
    with watch("generation"):
        time.sleep(0.01)
        with watch("encode"):
            time.sleep(0.05)
        time.sleep(0.01)
    assert watch.wall["encode"] >= 0.05
    assert 0.02 <= watch.wall["generation"] < watch.wall["encode"]
    assert watch.wall["other"] == 0


@pytest.mark.parametrize("most", [0, 1, 2, 5, 8, 63, 64])
def test_largest(most: int) -> None:
    tried: list[int] = []

    def fits(number: int) -> bool:
        tried.append(number)
        return number <= most

    assert largest(fits, limit=64) == most
    assert max(tried) <= 64
    assert len(tried) == len(set(tried))


@pytest.mark.parametrize("adapters", [False, True])
def test_search_runs_steps_until_memory_ends(
    adapters: bool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SIZES, "tiny", SIZE)
    grpo, runtime = settings_for("tiny", GROUP, 2, "cpu", "float32")
    grpo = grpo.model_copy(update={"lora": grpo.lora.model_copy(update={"enabled": adapters})})
    policy, reader = load_policy(folder / "policy"), ShardReader(folder / DATASET)
    policy.model.config._name_or_path = str(folder / "policy")
    assert search(policy, reader, grpo, runtime, tmp_path) == len(reader.clip_ids)
    batches: list[int] = []

    def run_out(module: torch.nn.Module, inputs: Any) -> None:
        batches.append(inputs[0].shape[0])
        raise torch.cuda.OutOfMemoryError("no more")

    policy = load_policy(folder / "policy")
    policy.model.config._name_or_path = str(folder / "policy")
    policy.model.model.vision_tower.register_forward_pre_hook(run_out)
    assert search(policy, reader, grpo, runtime, tmp_path) == 0
    assert batches == [SIZE.policy.num_frames]


def test_operations_are_those_that_torch_counts(folder: Path) -> None:
    policy = load_policy(folder / "policy")
    policy.model.set_attn_implementation("eager")  # which multiplies the masked half too
    rows, length = 2, 12
    with FlopCounterMode(display=False) as counter:
        policy.model(input_ids=torch.arange(rows * length).reshape(rows, length))
    expected = Language.of(policy.model).forward(rows * length, rows * length, rows * length * length)
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("frozen", [False, True])
def test_operations_of_an_update_are_those_that_torch_counts(folder: Path, frozen: bool) -> None:
    policy = load_policy(folder / "policy")
    policy.model.set_attn_implementation("eager")
    policy.model.requires_grad_(not frozen)
    # Adapters train below every layer, so the gradient passes through all of them.
    policy.model.get_input_embeddings().register_forward_hook(
        lambda module, inputs, output: output.requires_grad_(True) if frozen else output
    )
    rows, length = 2, 12
    with FlopCounterMode(display=False) as counter:
        policy.model(input_ids=torch.arange(rows * length).reshape(rows, length)).logits.sum().backward()
    expected = Language.of(policy.model).update(
        Work(rows * length, rows * length, rows * length * length), frozen=frozen
    )
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.05)


def test_work_of_a_shared_prompt() -> None:
    alone = Work.of(3, 1, 20, 5, shared=False)
    assert alone == Work(3 * 25, 3 * 5, 3 * 25 * 26 // 2)
    assert Work.of(3, 1, 20, 5, shared=True) == alone
    assert Work.of(3, 8, 20, 5, shared=True).tokens == 3 * 19 + 24 * 6
    assert Work.of(3, 8, 20, 5, shared=True).scored == 24 * 5


def test_peaks() -> None:
    assert peak_of("NVIDIA H100 80GB HBM3") == 989.0
    assert peak_of("NVIDIA H100 PCIe") == 756.0
    assert peak_of("NVIDIA A100-SXM4-80GB") == 312.0
    assert peak_of("x86_64") is None


def test_what_was_seen_survives_the_file(tmp_path: Path) -> None:
    seen = Seen([[1, 2]], {"policy": {(1, 2): torch.ones(2)}}, 0.5, {"norm": torch.ones(3)})
    torch.save(vars(seen), tmp_path / "seen.pt")
    assert agree(seen, Seen(**torch.load(tmp_path / "seen.pt"))) == {"policy": 0, "loss": 0, "gradient": 0}


# Weights of the published Qwen2-0.5B and Qwen2-7B, the latter without its head of 152064 x 3584.
@pytest.mark.parametrize(("name", "weights"), [("0.5b", 494_032_768), ("7b", 7_070_619_136)])
def test_released_sizes_are_those_of_the_released_models(name: str, weights: int) -> None:
    model = build_policy(SIZES[name], "meta").model
    assert sum(value.numel() for value in model.get_decoder().parameters()) == weights
    assert model.model.config.audio_tokens == 500
    assert model.model.config.tokens_per_frame == {"0.5b": 49, "7b": 196}[name]


def test_50m_has_about_fifty_million_weights() -> None:
    model = build_policy(SIZES["50m"], "meta").model
    assert sum(value.numel() for value in model.parameters()) == pytest.approx(50e6, rel=0.05)
