"""Does it fit? Sequence, shapes and memory of a training run, from parameters and sizes, without torch.

What is exact and what is an estimate:

- numbers of weights, gradients, optimiser states, features and tokens are exact (`PolicySizes` counts them);
- activations, what autograd keeps of a block per token, were measured with `saved_tensors_hooks` on models of
  several sizes and are linear in the widths (a test repeats the measurement);
- generation, the autocast copies and what CUDA itself takes are bounds set by hand, not measured on a GPU.

The real figure is that of the step which `erv doctor --gpu` measures.

Weights are float32 whatever `runtime.dtype` says: half precision is autocast, and its copies of the weights
count too. Only frozen matrices are held in half precision (`erv.training.common.half_precision`), and only
once the float32 policy has been on the device; those of towers and projectors count in full here. Towers run
once per clip, without gradient, and are not part of a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from erv.doctor.policy_sizes import PolicySizes
from erv.prompts import INSTRUCTION
from erv.settings import LoraSettings, Settings
from erv.settings.across import written_by_vllm

# Bytes that a block keeps per token, per unit of width and of inner width, by the bytes of a number in the
# computation: for a block that trains, and for one that only passes the gradient on.
_TRAINED = {4: (32, 16), 2: (30, 8)}
_FROZEN = {4: (16, 12), 2: (12, 6)}
# The same for the visual projector, per patch, width and depth.
_PROJECTOR = {4: 121, 2: 60}
_TILE = 4096 * 32768 * 4 * 2  # TRL's head scores this many tokens and words at a time, forward and backward
_ADAM = 8  # two moments, float32
_NF4 = 0.5625  # bytes: four bits and a float32 scale per block of 64
_CUDA = 1_000_000_000  # context, libraries' workspaces and what the allocator can't reuse
_TEMPLATE_BYTES = 160  # roles, tags and line breaks of the chat template around the question
_SHARDED = {None: (), "ddp": (), "zero2": ("gradients", "optimiser"),
            "zero3": ("weights", "reference", "gradients", "optimiser"),
            "fsdp": ("weights", "reference", "gradients", "optimiser")}  # fmt: skip


_PARTS = (
    "zero2",
    "zero3",
    "fsdp",
)  # a process may hold only parts, see `training.common.adapters.is_sharded`


class _Stage(Protocol):
    """What `sft` and `grpo` have in common here."""

    lora: LoraSettings
    gradient_checkpointing: bool


@dataclass(frozen=True)
class Budget:
    """Tokens of the longest row.

    Attributes:
        video: tokens of the frames.
        audio: tokens of the sound.
        text: most tokens of question and template: a byte-level tokenizer makes no more tokens than bytes.
        completion: most tokens of the completion.
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
    """Peak memory of a stage on one device, in bytes, by what takes it.

    Attributes:
        stage: name of the stage.
        parts: what a step takes.
        loading: what the policy takes before its frozen matrices are rounded to half precision.
    """

    stage: str
    parts: Mapping[str, int]
    loading: int = 0

    @property
    def total(self) -> int:
        """All parts of a step, or the policy as it is loaded if that is more."""
        return max(self.loading, sum(self.parts.values()))

    @property
    def certain(self) -> int:
        """What is needed even if the estimates are wrong: weights, gradients, optimiser."""
        needed = sum(self.parts[name] for name in ("weights", "reference", "gradients", "optimiser"))
        return max(self.loading, needed)

    def __str__(self) -> str:
        named = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in self.parts.items() if size >= 5e7)
        return f"{self.stage} about {self.total / 1e9:.1f} GB ({named})"


def budget(sizes: PolicySizes, completion: int) -> Budget:
    """The token budget of a row with a completion of this many tokens."""
    text = len(INSTRUCTION.encode()) + _TEMPLATE_BYTES
    return Budget(sizes.video_tokens, sizes.audio_tokens, text, completion, sizes.positions)


def faults(settings: Settings, sizes: PolicySizes) -> list[str]:
    """What is certain to fail: a sequence that is too long, frames that the policy doesn't take."""
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
    if settings.rollouts.policies:
        lengths["rollouts.max_new_tokens"] = settings.rollouts.max_new_tokens
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
    """Stages that take more memory than a device has, each with remedies.

    Args:
        settings: all parameters.
        sizes: sizes of the policy.
        available: memory of the device in bytes.
        certain: count only what does not rest on estimates.
    """
    return [
        f"{estimate} does not fit into the GPU's {available / 1e9:.1f} GB; {remedies(settings, estimate)}"
        for estimate in (sft_memory(settings, sizes), grpo_memory(settings, sizes))
        if (estimate.certain if certain else estimate.total) > available
    ]


def sft_memory(settings: Settings, sizes: PolicySizes) -> Estimate:
    """Memory of a device in a step of `sft`, with completions of `grpo.max_completion_length` tokens."""
    sft, wide = settings.sft, _number_bytes(settings)
    of_process = max(1, sft.batch_size // settings.machine.processes)
    rows = min(settings.machine.sft.rows_per_pass or of_process, of_process)
    completion = settings.grpo.max_completion_length
    tokens = rows * (_prompt(sizes) + completion)
    # Logits of the completion, their float32 copy, the saved softmax and its gradient.
    update = _blocks(sizes, sft, wide, tokens, tokens) + rows * completion * sizes.vocabulary * (wide + 12)
    update += 0 if sft.lora.enabled else _PROJECTOR[wide] * sizes.width * sizes.projected * rows
    parts = _standing(settings, sizes, sft, sizes.trainable - sizes.question_encoder, rows)
    return Estimate("sft", parts | {"update": update, "CUDA": _CUDA}, _loading(sizes, sft))


def grpo_memory(settings: Settings, sizes: PolicySizes, verifier_bytes: int = 0) -> Estimate:
    """Memory of a device in a step of `grpo`: generation or update, whichever takes more.

    Args:
        settings: all parameters.
        sizes: sizes of the policy.
        verifier_bytes: size of the verifier's weights, which are on the same device.
    """
    grpo, wide = settings.grpo, _number_bytes(settings)
    of_process = max(1, grpo.prompts_per_step * grpo.num_generations // settings.machine.processes)
    rows = min(settings.machine.grpo.rows_per_pass or of_process, of_process)
    # Rows of a group read their prompt once.
    shared = not (grpo.gradient_checkpointing and settings.machine.accelerate in _PARTS)
    prompt, completion = _prompt(sizes), grpo.max_completion_length
    length = prompt + completion
    groups, all_groups = -(-rows // grpo.num_generations), -(-of_process // grpo.num_generations)
    update = _blocks(
        sizes, grpo, wide, (groups if shared else rows) * prompt + rows * completion, rows * length
    )
    if not (grpo.freeze_projectors or grpo.lora.enabled):
        update += _PROJECTOR[wide] * sizes.width * sizes.projected * groups
    update += min(_TILE, rows * completion * 32768 * 8)
    # Keys and values of all rows (rotated keys stay float32; the prompt's count twice, for while the cache
    # grows), the activations of the prompts, and the logits of a token.
    cached = of_process * (length + prompt) * sizes.layers * sizes.key_value_width * (4 + wide)
    reading = (all_groups if shared else of_process) * prompt * (8 * sizes.width + 3 * sizes.mlp) * wide
    generation = cached + reading + of_process * sizes.vocabulary * 12
    full = sizes.language if grpo.freeze_projectors else sizes.trainable
    parts = _standing(settings, sizes, grpo, full, grpo.prompts_per_step, reference=grpo.beta > 0)
    parts["verifier"] = verifier_bytes
    parts["update" if update >= generation else "generation"] = max(update, generation)
    return Estimate("grpo", parts | {"CUDA": _CUDA}, _loading(sizes, grpo))


def _loading(sizes: PolicySizes, stage: _Stage) -> int:
    """Bytes of the policy as it is loaded; a base in four bits is never whole on the device."""
    return 0 if stage.lora.quantize != "none" else 4 * sizes.parameters


def needs_gpu(settings: Settings) -> list[str]:
    """The parameters that only a GPU can do, as `name: value`."""
    runtime, accelerate = settings.runtime, settings.machine.accelerate
    found = {
        "grpo.generation": "vllm" if written_by_vllm(settings) else None,
        "runtime.device": runtime.device if runtime.device == "cuda" else None,
        "runtime.dtype": runtime.dtype if runtime.dtype != "float32" else None,
        "machine.accelerate": accelerate if accelerate not in (None, "ddp") else None,
        "sft.lora.quantize": settings.sft.lora.quantize if settings.sft.lora.quantize != "none" else None,
        "grpo.lora.quantize": settings.grpo.lora.quantize if settings.grpo.lora.quantize != "none" else None,
    }
    return [f"{name}: {value}" for name, value in found.items() if value is not None]


def _standing(
    settings: Settings, sizes: PolicySizes, stage: _Stage, full: int, clips: int, *, reference: bool = False
) -> dict[str, int]:
    """What stays on the device from the first step to the last, sharded as the launcher shards it.

    Args:
        settings: all parameters.
        sizes: sizes of the policy.
        stage: settings of the stage, for adapters and checkpointing.
        full: number of weights that train if adapters don't.
        clips: number of clips that a step needs features of, besides the cached ones.
        reference: whether full training keeps a reference policy.
    """
    lora = stage.lora
    trained = lora.rank * sizes.adapter if lora.enabled else full
    parts = {
        "weights": 4 * sizes.parameters + (4 * trained if lora.enabled else 0),
        "reference": 4 * sizes.parameters if reference and not lora.enabled else 0,
        "gradients": 4 * trained,
        "optimiser": _ADAM * trained,
    }
    half, shards = _number_bytes(settings) == 2, settings.machine.accelerate in _PARTS
    if lora.quantize == "nf4":
        parts["weights"] -= round((4 - _NF4) * sizes.matrices)
    elif half and lora.enabled:
        parts["weights"] -= 2 * sizes.matrices
    elif half and parts["reference"] and not shards:
        parts["reference"] -= 2 * sizes.matrices
    for name in _SHARDED[settings.machine.accelerate]:
        parts[name] //= settings.machine.processes
    if settings.machine.accelerate in ("zero3", "fsdp"):  # of a block that is at work all weights are there
        parts["weights"] += 8 * sizes.block
    if settings.machine.accelerate == "ddp":
        parts["gradients"] *= 2  # the buckets in which they are averaged
    if half and not lora.enabled:  # autocast keeps the copies of weights that train
        parts["autocast"] = 2 * sizes.matrices
    parts["features"] = round(settings.machine.feature_cache_gb * 1e9) + clips * sizes.feature_bytes
    return parts


def _blocks(sizes: PolicySizes, stage: _Stage, wide: int, tokens: int, attended: int) -> int:
    """What autograd keeps of the language model.

    Args:
        sizes: sizes of the policy.
        stage: settings of the stage, for adapters and checkpointing.
        wide: bytes of a number in the computation.
        tokens: number of tokens that go through the blocks.
        attended: rows times their length: keys and values are copied for each head.
    """
    per_width, per_inner = (_FROZEN if stage.lora.enabled else _TRAINED)[wide]
    if stage.lora.enabled:
        per_width += 4 * wide  # the adapters' inputs
    block = tokens * (per_width * sizes.width + per_inner * sizes.mlp)
    block += attended * 2 * wide * sizes.width
    if stage.gradient_checkpointing:  # the inputs of all blocks, and one recomputed block
        return block + sizes.layers * tokens * 4 * sizes.width
    return sizes.layers * block


def _prompt(sizes: PolicySizes) -> int:
    """Likely number of tokens of a prompt, with three bytes of text per token."""
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
