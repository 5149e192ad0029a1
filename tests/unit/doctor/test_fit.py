"""Sizes and fits: exact counts against models on the meta device, activations against what autograd keeps."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from transformers import Qwen2Config, Qwen2Model

from erv.doctor import fit
from erv.doctor.policy_sizes import PolicySizes, nominal, sizes_of
from erv.errors import DataError
from erv.policies import Policy
from erv.policies.humanomni import HumanOmniConfig, HumanOmniForConditionalGeneration
from erv.policies.humanomni.projector import VisualProjector
from erv.prompts import INSTRUCTION
from erv.sample.tiny_policy import build_tiny_policy
from erv.settings import Settings, parse_settings
from erv.settings.profile import load_profile, merged
from tests.support.sizes import SMALLEST
from tests.support.tiny_qwen_omni import tiny_qwen_omni


@pytest.fixture
def raw(root: Path) -> dict[str, Any]:
    return yaml.safe_load((root / "params.yaml").read_text())


def released_config(name: str) -> HumanOmniConfig:
    """The released sizes as a configuration of ours, written down a second time from the specification."""
    small = name == "HumanOmni-0.5B"
    return HumanOmniConfig(
        text_config={
            "model_type": "qwen2",
            "hidden_size": 896 if small else 3584,
            "num_hidden_layers": 24 if small else 28,
            "num_attention_heads": 14 if small else 28,
            "num_key_value_heads": 2 if small else 4,
            "intermediate_size": 4864 if small else 18944,
            "vocab_size": 151936 if small else 152064,
            "max_position_embeddings": 32768,
            "tie_word_embeddings": small,
        },
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 768 if small else 1152,
            "num_hidden_layers": 11 if small else 26,  # the last block is never built
            "num_attention_heads": 12 if small else 16,
            "intermediate_size": 3072 if small else 4304,
            "patch_size": 16 if small else 14,
            "image_size": 224 if small else 384,
        },
        audio_config={
            "model_type": "whisper",
            "d_model": 1280,
            "encoder_layers": 32,
            "encoder_attention_heads": 20,
            "encoder_ffn_dim": 5120,
            "num_mel_bins": 128,
        },
        gate_config={"model_type": "bert"},
        projector_type="all_in_one_small" if small else "all_in_one",
    )


def count(*modules: Any) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def assert_counts(sizes: PolicySizes, model: Any) -> None:
    inner = model.model
    assert sizes.parameters == count(model)
    assert sizes.trainable == count(model) - count(inner.vision_tower, inner.audio_tower)
    assert sizes.question_encoder == count(inner.gate_encoder)
    between = count(inner.gate, inner.visual_projector, inner.audio_projector, inner.gate_encoder)
    assert sizes.language == sizes.trainable - between


@pytest.mark.parametrize(
    ("name", "weights", "frames"),
    [("HumanOmni-0.5B", 1_358_082_371, 392), ("HumanOmni-7B", 9_550_188_643, 1568)],
)
def test_released_sizes_are_those_of_the_models(name: str, weights: int, frames: int, tmp_path: Path) -> None:
    config = released_config(name)
    with torch.device("meta"):
        model = HumanOmniForConditionalGeneration(config)
    sizes = nominal(name)
    assert sizes.parameters == weights
    assert_counts(sizes, model)
    layers = model.model.language_model.layers
    assert sizes.matrices == sum(p.numel() for p in layers.parameters() if p.ndim == 2)
    assert sizes.block == count(layers) // len(layers)
    assert (sizes.width, sizes.layers) == (config.text_config.hidden_size, len(layers))
    assert (sizes.video_tokens, sizes.audio_tokens) == (frames, 500)
    config.save_pretrained(tmp_path)
    ours = sizes_of(json.loads((tmp_path / "config.json").read_text()), name)
    assert ours == sizes


def features_of(policy: Policy, **clip: Any) -> int:
    prepared = policy.processor.prepare_clip(**clip)
    encoded = policy.model.encode_clips(**{name: value[None] for name, value in prepared.items()})
    return sum(value.nbytes for value in encoded.values())


def test_a_policy_folder_and_what_is_none(tmp_path: Path) -> None:
    policy = Policy(*build_tiny_policy([INSTRUCTION], 0, SMALLEST))
    policy.model.save_pretrained(tmp_path)
    sizes = sizes_of(json.loads((tmp_path / "config.json").read_text()), "tiny")
    assert sizes is not None
    assert_counts(sizes, policy.model)
    clip = np.zeros((2, 32, 32, 3), np.uint8), np.zeros(16000, np.int16)
    assert sizes.feature_bytes == features_of(policy, frames=clip[0], audio=clip[1], sample_rate=16000)
    assert sizes_of({"model_type": "qwen2_5_omni"}, "other") is None
    for broken in (
        {"model_type": "HumanOmni_qwen2", "hidden_size": 896},
        {"model_type": "humanomni", "text_config": {"hidden_size": "many"}},
    ):
        with pytest.raises(DataError, match="not a policy's configuration"):
            sizes_of(broken, "broken")


def test_another_family() -> None:
    policy = tiny_qwen_omni([INSTRUCTION], 0)
    sizes = sizes_of(policy.model.config.to_dict(), "qwen")
    assert sizes is not None
    inner = policy.model.model
    assert sizes.parameters == count(policy.model)
    assert sizes.trainable == sizes.language == count(policy.model) - count(inner.visual, inner.audio_tower)
    config = policy.model.config
    prompt = policy.processor.prompt_ids()
    assert (sizes.frames, sizes.image_size) == (policy.processor.num_frames, policy.processor.image_size)
    assert sizes.video_tokens == prompt.count(config.video_token_id)
    assert sizes.audio_tokens == prompt.count(config.audio_token_id)
    frames = np.zeros((sizes.frames, sizes.image_size, sizes.image_size, 3), np.uint8)
    silence = np.zeros(16000, np.int16)
    assert sizes.feature_bytes == features_of(policy, frames=frames, audio=silence, sample_rate=16000)


def kept_bytes(module: Any, run: Any, half: bool) -> int:
    """What autograd keeps of a forward pass, weights and their half copies left out."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    shapes = {tuple(p.shape) for p in module.parameters() if p.ndim > 1}
    shapes |= {shape[::-1] for shape in shapes}
    seen: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        copy = half and tensor.dtype == torch.bfloat16 and tuple(tensor.shape) in shapes
        if storage.data_ptr() not in weights and not copy:
            seen[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)  # else a later tensor gets the address of an earlier one
        return tensor

    alive: list[torch.Tensor] = []
    context = torch.autocast("cpu", torch.bfloat16) if half else nullcontext()
    with context, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(seen.values())


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("trains", [False, True])
@pytest.mark.parametrize(("width", "narrow", "mlp"), [(128, 32, 704), (256, 64, 512), (384, 96, 1024)])
def test_activations_of_the_language_model(
    width: int, narrow: int, mlp: int, trains: bool, half: bool, raw: dict[str, Any]
) -> None:
    rows, length, layers = 3, 70, 3
    config = Qwen2Config(
        hidden_size=width, intermediate_size=mlp, num_hidden_layers=layers, vocab_size=64,
        num_attention_heads=width // 32, num_key_value_heads=narrow // 32,
    )  # fmt: skip
    model = Qwen2Model(config).requires_grad_(trains)
    embedded = torch.randn(rows, length, width, requires_grad=True)
    mask = torch.ones(rows, length, dtype=torch.long)
    mask[0, :5] = 0
    measured = kept_bytes(model, lambda: model(inputs_embeds=embedded, attention_mask=mask), half)
    wide = 2 if half else 4
    table = fit._TRAINED if trains else fit._FROZEN
    per_width, per_inner = table[wide]
    estimated = layers * rows * length * (per_width * width + per_inner * mlp + 2 * wide * width)
    assert measured == pytest.approx(estimated, rel=0.12)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(("kind", "depth", "side"), [("all_in_one_small", 2, 6), ("all_in_one", 4, 5)])
def test_activations_of_the_projector(kind: str, depth: int, side: int, half: bool) -> None:
    projector = VisualProjector(96, 128, kind)
    features, weights = torch.randn(2, 4, side * side, 96), torch.full((2, 3), 1 / 3)
    measured = kept_bytes(projector, lambda: projector(features, weights), half)
    estimated = fit._PROJECTOR[2 if half else 4] * depth * 128 * 2 * 4 * side * side
    assert measured == pytest.approx(estimated, rel=0.15)


def paper(root: Path, name: str = "paper-0.5b") -> tuple[Settings, PolicySizes]:
    profile = load_profile(name)
    assert profile.policy is not None
    return merged(profile, root / "params.yaml"), nominal(profile.policy)


def test_budget_of_the_paper_s_setting(root: Path) -> None:
    settings, sizes = paper(root)
    row = fit.budget(sizes, settings.grpo.max_completion_length)
    assert (row.video, row.audio, row.completion, row.limit) == (392, 500, 512, 32768)
    assert str(row).startswith("392 tokens of frames + 500 of sound + at most ")
    assert fit.faults(settings, sizes) == []


def test_what_does_not_fit_is_named(raw: dict[str, Any]) -> None:
    sizes = replace(nominal("HumanOmni-0.5B"), positions=1500)
    raw["grpo"]["max_completion_length"] = 512
    frames, grpo = fit.faults(parse_settings(raw), sizes)
    assert frames == (
        "extract makes 8 frames of 64 pixels, but HumanOmni-0.5B takes 8 of 224; set extract.frames: 8 and"
        " extract.size: 224"
    )
    assert grpo.startswith("grpo.max_completion_length is 512: 392 tokens of frames + 500 of sound")
    lowered = int(grpo.rpartition(" ")[2])
    raw["grpo"]["max_completion_length"] = lowered
    raw["extract"]["size"] = 224
    assert fit.faults(parse_settings(raw), sizes) == []
    raw["grpo"]["max_completion_length"] = lowered + 1
    assert len(fit.faults(parse_settings(raw), sizes)) == 1


def test_memory_by_what_takes_it(root: Path, raw: dict[str, Any]) -> None:
    settings, sizes = paper(root)
    whole = fit.grpo_memory(settings, sizes)
    assert whole.parts["weights"] == 4 * sizes.parameters
    assert whole.parts["reference"] == 4 * sizes.parameters - 2 * sizes.matrices, "frozen, so in bfloat16"
    assert whole.parts["optimiser"] == 8 * sizes.trainable
    assert fit.sft_memory(settings, sizes).parts["reference"] == 0

    def with_(**changes: Any) -> fit.Estimate:
        parameters = settings.model_dump(mode="json", by_alias=True)
        parameters["machine"].update(changes.pop("machine", {}))
        parameters["grpo"].update(changes)
        return fit.grpo_memory(parse_settings(parameters), sizes)

    assert with_(beta=0.0).parts["reference"] == 0
    assert with_(freeze_projectors=True).parts["optimiser"] == 8 * sizes.language
    lora = {"enabled": True, "rank": 8, "alpha": 16, "dropout": 0.0, "quantize": "none"}
    adapters = with_(lora=lora)
    # q and o: 896 -> 896, k and v: 896 -> 128, in 24 blocks
    assert adapters.parts["gradients"] == 4 * 24 * 8 * (2 * (896 + 896) + 2 * (896 + 128))
    assert adapters.parts["reference"] == 0
    assert "autocast" not in adapters.parts
    assert (
        adapters.parts["weights"] == 4 * sizes.parameters - 2 * sizes.matrices + adapters.parts["gradients"]
    )
    assert (
        with_(lora=lora | {"quantize": "nf4"}).parts["weights"] < adapters.parts["weights"] - sizes.matrices
    )
    assert (
        with_(machine={"grpo": {"rows_per_pass": 1, "save_steps": 1, "sample_steps": 1}}).parts["update"]
        < whole.parts["update"] / 2
    )
    assert with_(gradient_checkpointing=True).total < whole.total
    two = {"processes": 2, "accelerate": "zero2"}
    assert with_(machine=two).parts["optimiser"] == whole.parts["optimiser"] // 2
    assert with_(machine=two).parts["weights"] == whole.parts["weights"]
    assert with_(machine=two | {"accelerate": "zero3"}).parts["reference"] == whole.parts["weights"] // 2
    assert with_(machine=two | {"accelerate": "ddp"}).parts["gradients"] == 2 * whole.parts["gradients"]


def test_devices_that_are_too_small(root: Path) -> None:
    settings, sizes = paper(root)
    assert fit.memory_faults(settings, sizes, 80_000_000_000) == []
    sft, grpo = fit.memory_faults(settings, sizes, 16_000_000_000)
    assert sft.startswith("sft about ")
    assert "does not fit into the GPU's 16.0 GB; lower machine.grpo.rows_per_pass" in grpo
    big, sizes = paper(root, "paper-7b")
    assert fit.memory_faults(big, sizes, 80_000_000_000) == []
    sft, grpo = fit.memory_faults(big, sizes, 32_000_000_000)
    assert "lower grpo.prompts_per_step" in grpo, "generation is what takes most"
    assert "grpo.lora.quantize: nf4" in grpo
