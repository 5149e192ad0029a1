"""Fine-tuning on TRL's trainer: its seams, packed rows, passes, adapters, processes."""

from __future__ import annotations

import inspect
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from trl import SFTTrainer

from erv.errors import TrainingError
from erv.policies import Policy, load_policy
from erv.settings import LoraSettings, SftSettings
from erv.shards import ShardReader
from erv.training.common import adapters, fine_tuning
from erv.training.common.clip_features import ClipFeatures, policy_encoder
from erv.training.common.collate import Collator, Example, check_packing, completion_loss
from erv.training.common.sft_trainer import OmniSFTTrainer
from erv.training.sft.sft import build_examples
from tests.support.runtime import machine
from tests.support.sft_policy import (
    ROWS,
    SETTINGS,
    largest_difference,
    train,
    update_difference,
    weights,
    write_base,
    write_clips,
)

CLOSE = 1e-3  # of an update; a mean of the passes' means is 0.35 away
LORA = LoraSettings(enabled=True, rank=4, alpha=8, dropout=0.0, quantize="none")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sft")


@pytest.fixture(scope="module")
def shards(folder: Path) -> dict[str, ShardReader]:
    return write_clips(folder)


@pytest.fixture(scope="module")
def base(folder: Path) -> Path:
    return write_base(folder / "base")


@pytest.fixture(scope="module")
def plain(base: Path, shards: dict[str, ShardReader], folder: Path) -> dict[str, torch.Tensor]:
    """Weights after two steps, the batch in one pass."""
    return weights(train(base, shards, folder / "plain", SETTINGS))


@pytest.fixture(scope="module")
def started(base: Path) -> dict[str, torch.Tensor]:
    """The weights before any step."""
    return weights(load_policy(base))


def changed(**changes: Any) -> SftSettings:
    return SftSettings.model_validate(SETTINGS.model_dump() | changes)


# --- seams of TRL ---


def test_the_seams_are_where_trl_has_them() -> None:
    for name, parameters in {
        "compute_loss": ["self", "model", "inputs", "return_outputs", "num_items_in_batch"],
        "_save_checkpoint": ["self", "model", "trial"],
        "_send_telemetry": ["self"],
    }.items():
        assert list(inspect.signature(getattr(SFTTrainer, name)).parameters) == parameters, (
            f"TRL has changed {name}"
        )
    assert "model_name" in inspect.signature(SFTTrainer.create_model_card).parameters
    body = inspect.getsource(SFTTrainer)
    for used in ('_metrics[mode]["mean_token_accuracy"]', "self.create_model_card(", "skip_prepare_dataset"):
        assert used in body, f"TRL's SFTTrainer no longer has {used}"
    assert SFTTrainer.loss_is_scaled_for_ga is OmniSFTTrainer.loss_is_scaled_for_ga is None


def test_the_overrides_are_called(
    base: Path, shards: dict[str, ShardReader], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []

    def watch(name: str) -> None:
        original: Callable[..., Any] = vars(OmniSFTTrainer)[name]

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            called.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(OmniSFTTrainer, name, wrapper)

    names = ["_send_telemetry", "compute_loss", "create_model_card", "_save_checkpoint"]
    for name in names:
        watch(name)
    train(base, shards, tmp_path, SETTINGS)
    assert set(called) == set(names)
    assert called.count("compute_loss") == SETTINGS.max_steps
    files = {path.name for path in (tmp_path / "checkpoint-2").iterdir()}
    assert "complete.json" in files
    assert not files & {"README.md", "training_args.bin"}


def test_trls_own_loss_learns_the_same(
    base: Path,
    shards: dict[str, ShardReader],
    plain: dict[str, torch.Tensor],
    started: dict[str, torch.Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What runs on a GPU and in several processes: through the model's forward, the head in tiles."""
    monkeypatch.setattr(OmniSFTTrainer, "_plain_loss", None)  # not to be called
    original = OmniSFTTrainer.__init__

    def tiled(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self._plain = False

    monkeypatch.setattr(OmniSFTTrainer, "__init__", tiled)
    seen: list[dict[str, float]] = []
    policy = train(base, shards, tmp_path, SETTINGS, on_metrics=lambda metrics, step: seen.append(metrics))
    assert update_difference(plain, weights(policy), started) < CLOSE
    assert any("validation_loss" in metrics for metrics in seen)


def test_metrics(base: Path, shards: dict[str, ShardReader], tmp_path: Path) -> None:
    seen: list[dict[str, float]] = []
    train(
        base,
        shards,
        tmp_path,
        changed(max_steps=20),
        on_metrics=lambda metrics, step: seen.append({**metrics, "step": step}),
    )
    logged = [metrics for metrics in seen if "loss" in metrics]
    assert [metrics["step"] for metrics in logged] == [10, 20]
    names = {"step", "loss", "learning_rate", "grad_norm", "token_accuracy", "entropy"}
    assert set(logged[0]) == names | {"trained_tokens_per_second"}
    assert all(metrics["trained_tokens_per_second"] > 0 for metrics in logged)
    assert logged[1]["token_accuracy"] > logged[0]["token_accuracy"]
    assert 0 < logged[1]["entropy"] < logged[0]["entropy"]


# --- packed rows ---


def examples_of(base: Path, shards: dict[str, ShardReader]) -> tuple[Policy, list[Example], ClipFeatures]:
    policy = load_policy(base)
    examples = build_examples(policy, ROWS, shards)["train"]
    return policy, examples, ClipFeatures(policy_encoder(policy), shards)


def test_packed_loss_and_gradients_are_those_of_rows_of_their_own(
    base: Path, shards: dict[str, ShardReader]
) -> None:
    policy, examples, features = examples_of(base, shards)
    mixed = [examples[3], examples[0], examples[3], examples[1], examples[2]]  # 3 is silent, and twice
    found = []
    for packing in (False, True):
        policy.model.zero_grad()
        batch = Collator(policy, features, packing=packing)(mixed)
        total, tokens = completion_loss(policy.model, batch)
        (total / tokens).backward()  # type: ignore[no-untyped-call]
        gradients = {
            name: value.grad.clone()
            for name, value in policy.model.named_parameters()
            if value.grad is not None
        }
        found.append((total / tokens, tokens, gradients))
    (apart, count, expected), (packed, packed_count, gradients) = found
    assert count == packed_count == sum(len(item["completion"]) for item in mixed)
    assert torch.isclose(packed, apart, atol=1e-5)
    assert {name.split(".")[1] for name in gradients} >= {
        "language_model",
        "visual_projector",
        "audio_projector",
    }
    assert largest_difference(gradients, expected) < 1e-5


def test_packed_rows_have_no_padding(base: Path, shards: dict[str, ShardReader]) -> None:
    policy, examples, features = examples_of(base, shards)
    batch = Collator(policy, features, packing=True)(examples[:4])
    lengths = [len(item["prompt"]) + len(item["completion"]) for item in examples[:4]]
    assert batch["input_ids"].shape == batch["clip_index"].shape == (1, sum(lengths))
    assert "attention_mask" not in batch
    assert batch["position_ids"][0].tolist() == [place for length in lengths for place in range(length)]
    assert batch["clip_index"][0].bincount().tolist() == lengths


@pytest.mark.slow
def test_training_on_packed_rows_learns_the_same(
    base: Path,
    shards: dict[str, ShardReader],
    plain: dict[str, torch.Tensor],
    started: dict[str, torch.Tensor],
    tmp_path: Path,
) -> None:
    packed = train(base, shards, tmp_path, changed(packing=True), machine=machine(rows_per_pass=2))
    assert update_difference(plain, weights(packed), started) < CLOSE


def test_a_policy_that_mixes_packed_examples_is_refused(
    base: Path, shards: dict[str, ShardReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, examples, features = examples_of(base, shards)
    language = policy.model.model.language_model
    forward = language.forward

    def counts_on(**inputs: Any) -> Any:
        return forward(**(inputs | {"position_ids": None}))

    check_packing(policy, examples, features)
    monkeypatch.setattr(language, "forward", counts_on)
    with pytest.raises(
        TrainingError, match=r"can't be trained on packed rows: two examples get .* set sft.packing"
    ):
        check_packing(policy, examples, features)

    def refuses(**inputs: Any) -> Any:
        if inputs["attention_mask"] is None:
            raise ValueError("a mask is needed")
        return forward(**inputs)

    monkeypatch.setattr(language, "forward", refuses)
    with pytest.raises(
        TrainingError, match=r"does not accept packed rows \(a mask is needed\); set sft.packing to false"
    ):
        check_packing(policy, examples, features)


# --- passes ---


def test_several_passes_make_the_same_update(
    base: Path,
    shards: dict[str, ShardReader],
    plain: dict[str, torch.Tensor],
    started: dict[str, torch.Tensor],
    tmp_path: Path,
) -> None:
    """The completions differ in length: a mean of means would be another update."""
    lengths = {len(item["completion"]) for item in examples_of(base, shards)[1]}
    assert len(lengths) > 1
    policy = train(base, shards, tmp_path, SETTINGS, machine=machine(rows_per_pass=1))
    assert update_difference(plain, weights(policy), started) < CLOSE


def test_gradient_checkpointing_learns_the_same(
    base: Path,
    shards: dict[str, ShardReader],
    plain: dict[str, torch.Tensor],
    started: dict[str, torch.Tensor],
    tmp_path: Path,
) -> None:
    policy = train(base, shards, tmp_path, changed(gradient_checkpointing=True))
    assert update_difference(plain, weights(policy), started) < CLOSE
    assert policy.model.model.language_model.gradient_checkpointing


def test_a_batch_that_the_processes_can_not_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(TrainingError, match="a batch of 4 can't be divided among 3 processes with 1 rows"):
        fine_tuning._passes("sft", 4, None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert fine_tuning._passes("sft", 4, None) == (2, 1)
    assert fine_tuning._passes("sft", 4, 1) == (1, 2)


# --- adapters ---


@pytest.mark.parametrize("checkpointing", [False, True])
def test_adapters_are_merged_and_kept(
    base: Path, shards: dict[str, ShardReader], tmp_path: Path, checkpointing: bool
) -> None:
    settings = changed(lora=LORA.model_dump(), gradient_checkpointing=checkpointing)
    train(base, shards, tmp_path / "checkpoints", settings, output=tmp_path / "policy")
    before, after = weights(load_policy(base)), weights(load_policy(tmp_path / "policy"))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.split(".")[-2] in ("q_proj", "k_proj", "v_proj", "o_proj") for name in moved)
    assert all(".language_model." in name for name in moved)
    merged = adapters.merge_adapter(load_policy(base).model, tmp_path / "policy" / "adapter").state_dict()
    assert largest_difference(merged, after) < 1e-6
    assert not (tmp_path / "policy" / "adapter" / "README.md").exists()
    assert len(load_file(tmp_path / "policy" / "adapter" / "adapter_model.safetensors")) == 2 * len(moved)


@pytest.mark.slow
def test_an_interrupted_run_with_adapters_goes_on(
    base: Path, shards: dict[str, ShardReader], tmp_path: Path
) -> None:
    settings = changed(lora=LORA.model_dump(), max_steps=4)
    whole = weights(train(base, shards, tmp_path / "whole", settings))

    class Stop(Exception):
        pass

    def stop(metrics: dict[str, float], step: int) -> None:
        if step == 4:
            raise Stop

    with pytest.raises(Stop):
        train(base, shards, tmp_path / "cut", settings, on_metrics=stop)
    assert (tmp_path / "cut" / "checkpoint-2" / "complete.json").is_file()
    resumed = weights(train(base, shards, tmp_path / "cut", settings))
    assert largest_difference(resumed, whole) == 0.0


def test_four_bits_need_a_gpu_and_bitsandbytes(
    base: Path, shards: dict[str, ShardReader], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    four = LoraSettings(enabled=True, rank=4, alpha=8, dropout=0.0, quantize="nf4")
    with pytest.raises(TrainingError, match="quantize is nf4, which needs a GPU"):
        train(base, shards, tmp_path, changed(lora=four.model_dump()))
    monkeypatch.setattr(adapters, "installed_version", lambda name: "0.1")
    with pytest.raises(TrainingError, match=r"but this machine has bitsandbytes 0\.1, expected"):
        adapters.four_bit_copy(load_policy(base), four, torch.device("cuda"), torch.float32)


# --- processes ---


@pytest.mark.slow
def test_two_processes_learn_what_one_does(
    folder: Path,
    base: Path,
    shards: dict[str, ShardReader],
    plain: dict[str, torch.Tensor],
    started: dict[str, torch.Tensor],
    tmp_path: Path,
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    ranks = []
    for rank in range(2):
        variables = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
        ranks.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.support.sft_process", str(folder), str(base), str(tmp_path)],
                env={**os.environ, **variables, **address},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    printed = [rank.communicate(timeout=300)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(printed)
    assert "validation_loss" in printed[0]
    assert "validation_loss" not in printed[1], "only the first process reports"
    assert (tmp_path / "checkpoints" / "checkpoint-2" / "complete.json").is_file()
    together = weights(load_policy(tmp_path / "policy"))
    assert update_difference(plain, together, started) < CLOSE
