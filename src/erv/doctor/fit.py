"""Does it fit? Sequence, shapes and memory of a training, told from parameters and sizes in milliseconds.

Nothing here imports torch. What is exact and what is an estimate:

- numbers of weights, gradients, optimiser states, features and tokens are exact;
- activations are what autograd keeps of a block, per token: measured with `saved_tensors_hooks` on models of
  several sizes, where they are linear in the widths (a test measures again);
- generation, the autocast copies and what CUDA itself takes are bounds by hand, not measured on a GPU.
  `erv doctor --gpu` measures.

Weights are float32 whatever `runtime.dtype` says: half precision is autocast, whose copies of the weights
count too. Towers run once per clip, without gradient, and are no part of a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from erv.doctor.policy_sizes import PolicySizes
from erv.prompts import INSTRUCTION
from erv.settings import LoraSettings, Settings

# Bytes kept of a token in a block, per unit of width and of inner width, by bytes of the numbers that are
# computed with: of a block that trains, and of one that only passes the gradient on.
_TRAINED = {4: (32, 16), 2: (30, 8)}
_FROZEN = {4: (16, 12), 2: (12, 6)}
# The same of the visual projector, per patch, width and depth.
_PROJECTOR = {4: 121, 2: 60}
_TILE = 4096 * 32768 * 4 * 2  # TRL's head scores this many tokens and words at a time, forward and backward
_ADAM = 8  # two moments, float32
_NF4 = 0.5625  # bytes: four bits and a float32 scale per block of 64
_CUDA = 1_000_000_000  # context, libraries' workspaces and what the allocator can't reuse
_TEMPLATE_BYTES = 160  # roles, tags and line breaks of the chat template around the question
_SHARDED = {None: (), "ddp": (), "zero2": ("gradients", "optimiser"),
            "zero3": ("weights", "reference", "gradients", "optimiser"),
            "fsdp": ("weights", "reference", "gradients", "optimiser")}  # fmt: skip


class _Stage(Protocol):
    """What `sft` and `grpo` have in common here."""

    lora: LoraSettings
    gradient_checkpointing: bool


@dataclass(frozen=True)
class Budget:
    """Tokens of the longest row.

    Attributes:
        video: of the frames.
        audio: of the sound.
        text: of question and template, at most: a byte-level tokenizer makes no more tokens than bytes.
        completion: at most.
        limit: longest sequence of the language model.
    """

    video: int
    audio: int
    text: int
    completion: int
    limit: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.video + self.audio + self.text + self.completion

    def __str__(self) -> str:
        return (
            f"{self.video} tokens of frames + {self.audio} of sound + at most {self.text} of text"
            f" + {self.completion} of completion = {self.total} of {self.limit}"
        )


@dataclass(frozen=True)
class Estimate:
    """Memory of one device at the peak of a stage, in bytes by what takes it."""

    stage: str
    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        """All parts."""
        return sum(self.parts.values())

    @property
    def certain(self) -> int:
        """What is needed whatever the estimates are worth: weights, gradients, optimiser."""
        return sum(self.parts[name] for name in ("weights", "reference", "gradients", "optimiser"))

    def __str__(self) -> str:
        named = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in self.parts.items() if size >= 5e7)
        return f"{self.stage} about {self.total / 1e9:.1f} GB ({named})"


def budget(sizes: PolicySizes, completion: int) -> Budget:
    """Tokens of a row with a completion of so many tokens."""
    text = len(INSTRUCTION.encode()) + _TEMPLATE_BYTES
    return Budget(sizes.video_tokens, sizes.audio_tokens, text, completion, sizes.language.positions)


def faults(settings: Settings, sizes: PolicySizes) -> list[str]:
    """What would fail for certain: a sequence that is too long, frames that the policy doesn't take."""
    found = []
    extract = settings.extract
    if (extract.frames, extract.size) != (sizes.frames, sizes.image_size):
        found.append(
            f"extract makes {extract.frames} frames of {extract.size} pixels, but {sizes.name} takes"
            f" {sizes.frames} of {sizes.image_size}; set extract.frames: {sizes.frames} and"
            f" extract.size: {sizes.image_size}"
        )
    lengths = {
        "grpo.max_completion_length": settings.grpo.max_completion_length,
        "evaluate.max_new_tokens": settings.evaluate.max_new_tokens,
    }
    if settings.distill.rollouts.per_clip:
        lengths["distill.rollouts.max_new_tokens"] = settings.distill.rollouts.max_new_tokens
    for name, completion in lengths.items():
        row = budget(sizes, completion)
        if row.total > row.limit:
            found.append(
                f"{name} is {completion}: {row}; lower it to {max(1, row.limit - row.total + completion)}"
            )
    return found


def memory_faults(
    settings: Settings, sizes: PolicySizes, available: int, *, certain: bool = False
) -> list[str]:
    """Stages that take more than a device has, each with the remedies.

    Args:
        settings: all parameters.
        sizes: of the policy.
        available: memory of the device in bytes.
        certain: count only what does not rest on estimates.
    """
    return [
        f"{estimate} don't fit into the GPU's {available / 1e9:.1f} GB; {remedies(settings, estimate)}"
        for estimate in (sft_memory(settings, sizes), grpo_memory(settings, sizes))
        if (estimate.certain if certain else estimate.total) > available
    ]


def grpo_memory(settings: Settings, sizes: PolicySizes, verifier_bytes: int = 0) -> Estimate:
    """Memory of a device in a step of `grpo`: generation or update, whichever takes more.

    Args:
        settings: all parameters.
        sizes: of the policy.
        verifier_bytes: of the verifier's weights, which lie on the same device.
    """
    grpo, processes = settings.grpo, settings.machine.processes
    wide = _number_bytes(settings)
    of_process = max(1, grpo.prompts_per_step * grpo.num_generations // processes)
    rows = min(settings.machine.grpo.rows_per_pass or of_process, of_process)
    shared = not grpo.gradient_checkpointing
    prompt = _prompt(sizes)
    length = prompt + grpo.max_completion_length
    groups = -(-rows // grpo.num_generations)
    tokens = groups * prompt + rows * grpo.max_completion_length if shared else rows * length
    trains_projector = not (grpo.freeze_projectors or grpo.lora.enabled)
    trained = _trained(sizes, grpo.lora, projector=trains_projector, gate_encoder=trains_projector)
    update = (
        _blocks(sizes, grpo, wide, tokens, rows * length)
        + (_projector(sizes, wide, groups) if trains_projector else 0)
        + min(_TILE, rows * grpo.max_completion_length * 32768 * 8)
    )
    generation = _generation(
        sizes, wide, of_process, -(-of_process // grpo.num_generations), prompt, length, shared
    )
    parts = _standing(settings, sizes, grpo, trained, reference=grpo.beta > 0 and not grpo.lora.enabled)
    parts["features"] = (
        round(settings.machine.feature_cache_gb * 1e9) + grpo.prompts_per_step * sizes.feature_bytes
    )
    parts["verifier"] = verifier_bytes
    parts["update" if update >= generation else "generation"] = max(update, generation)
    return Estimate("grpo", parts | {"CUDA": _CUDA})


def needs_gpu(settings: Settings) -> list[str]:
    """The parameters that only a GPU can do, as `name: value`."""
    runtime, accelerate = settings.runtime, settings.machine.accelerate
    found = {
        "runtime.device": runtime.device if runtime.device == "cuda" else None,
        "runtime.dtype": runtime.dtype if runtime.dtype != "float32" else None,
        "machine.accelerate": accelerate if accelerate not in (None, "ddp") else None,
        "sft.lora.quantize": settings.sft.lora.quantize if settings.sft.lora.quantize != "none" else None,
        "grpo.lora.quantize": settings.grpo.lora.quantize if settings.grpo.lora.quantize != "none" else None,
    }
    return [f"{name}: {value}" for name, value in found.items() if value is not None]


def _kept(settings: Settings) -> int:
    """What `ClipFeatures` keeps at most."""
    return round(settings.machine.feature_cache_gb * 1e9)


def sft_memory(settings: Settings, sizes: PolicySizes) -> Estimate:
    """Memory of a device in a step of `sft`; completions count with `grpo.max_completion_length`."""
    sft, wide = settings.sft, _number_bytes(settings)
    of_process = max(1, sft.batch_size // settings.machine.processes)
    rows = min(settings.machine.sft.rows_per_pass or of_process, of_process)
    completion = settings.grpo.max_completion_length
    length = _prompt(sizes) + completion
    trained = _trained(sizes, sft.lora, projector=not sft.lora.enabled, gate_encoder=False)
    # Logits of the completion, their float32 copy, the softmax that is kept and its gradient.
    logits = rows * completion * sizes.language.vocabulary * (wide + 12)
    update = _blocks(sizes, sft, wide, rows * length, rows * length) + logits
    update += 0 if sft.lora.enabled else _projector(sizes, wide, rows)
    parts = _standing(settings, sizes, sft, trained, reference=False)
    parts["features"] = _kept(settings) + rows * sizes.feature_bytes
    return Estimate("sft", parts | {"update": update, "CUDA": _CUDA})


def _standing(
    settings: Settings, sizes: PolicySizes, stage: _Stage, trained: int, *, reference: bool
) -> dict[str, int]:
    """What lies on the device from the first step to the last, sharded as the launcher does it."""
    language = sizes.language
    weights = 4 * sizes.parameters
    if stage.lora.quantize == "nf4":
        weights -= round((4 - _NF4) * language.matrix_parameters)
    if stage.lora.enabled:
        weights += 4 * trained
    parts = {
        "weights": weights,
        "reference": 4 * sizes.parameters if reference else 0,
        "gradients": 4 * trained,
        "optimiser": _ADAM * trained,
    }
    shards = settings.machine.processes
    for name in _SHARDED[settings.machine.accelerate]:
        parts[name] //= shards
    if settings.machine.accelerate in ("zero3", "fsdp"):  # of a block that is at work all weights are there
        parts["weights"] += 8 * language.block_parameters
    if settings.machine.accelerate == "ddp":
        parts["gradients"] *= 2  # the buckets in which they are averaged
    if _number_bytes(settings) == 2:
        matrices = language.matrix_parameters
        # Frozen ones are cast anew by each block, and kept for the way back unless it is computed again.
        kept = not stage.lora.enabled or not stage.gradient_checkpointing
        parts["autocast"] = 2 * (matrices if kept else language.block_parameters)
    return parts


def _trained(sizes: PolicySizes, lora: LoraSettings, *, projector: bool, gate_encoder: bool) -> int:
    """Weights with a gradient."""
    if lora.enabled:
        return sizes.language.adapter_parameters(lora.rank)
    between = sizes.projector_parameters + sizes.gate_parameters if projector else 0
    return sizes.language.parameters + between + (sizes.gate_encoder_parameters if gate_encoder else 0)


def _blocks(sizes: PolicySizes, stage: _Stage, wide: int, tokens: int, attended: int) -> int:
    """What autograd keeps of the language model.

    Args:
        sizes: of the policy.
        stage: its adapters and checkpointing.
        wide: bytes of a number that is computed with.
        tokens: that go through the blocks.
        attended: rows times their length: keys and values are copied for each head.
    """
    language = sizes.language
    per_width, per_inner = (_FROZEN if stage.lora.enabled else _TRAINED)[wide]
    if stage.lora.enabled:
        per_width += 4 * wide  # the adapters' inputs
    block = tokens * (per_width * language.width + per_inner * language.mlp)
    block += attended * 2 * wide * language.width
    if stage.gradient_checkpointing:  # the inputs of all blocks, and one that is computed again
        return block + language.layers * tokens * 4 * language.width
    return language.layers * block


def _projector(sizes: PolicySizes, wide: int, clips: int) -> int:
    patches = clips * sizes.frames * sizes.vision.positions
    return _PROJECTOR[wide] * sizes.depth * sizes.language.width * patches


def _generation(
    sizes: PolicySizes, wide: int, rows: int, clips: int, prompt: int, length: int, shared: bool
) -> int:
    """Keys and values of all rows, what is made of the prompts, and the logits of a token."""
    language = sizes.language
    of_token = language.layers * language.key_value_width * (4 + wide)  # rotated keys stay float32
    cache = rows * (length + prompt) * of_token  # the prompt's twice, while the cache grows its room
    prompts = (clips if shared else rows) * prompt
    reading = prompts * (8 * language.width + 3 * language.mlp) * wide
    return cache + reading + rows * language.vocabulary * 12


def _prompt(sizes: PolicySizes) -> int:
    """Likely tokens of a prompt: three bytes of text make one."""
    return sizes.video_tokens + sizes.audio_tokens + (len(INSTRUCTION.encode()) + _TEMPLATE_BYTES) // 3


def _number_bytes(settings: Settings) -> int:
    return 4 if settings.runtime.dtype == "float32" else 2


def remedies(settings: Settings, estimate: Estimate) -> str:
    """What lowers the peak of a stage."""
    stage = estimate.stage
    section = settings.grpo if stage == "grpo" else settings.sft
    at_peak = "grpo.prompts_per_step" if "generation" in estimate.parts else f"machine.{stage}.rows_per_pass"
    wishes = [f"lower {at_peak}"]
    if "update" in estimate.parts and not section.gradient_checkpointing:
        wishes.append(f"set {stage}.gradient_checkpointing")
    if not section.lora.enabled:
        wishes.append(f"train adapters ({stage}.lora.enabled)")
    elif section.lora.quantize == "none":
        wishes.append(f"set {stage}.lora.quantize: nf4")
    return ", ".join([*wishes, "or shard it (machine.accelerate: zero3 with more processes)"])
