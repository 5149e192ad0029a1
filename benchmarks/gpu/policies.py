"""Random policies, clips, settings and estimates that several parts of the GPU proof share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.figures import Context
from benchmarks.grpo_sizes import DATASET, SIZES, build_policy, write_clips
from erv.doctor.fit import Estimate
from erv.doctor.policy_sizes import PolicySizes, sizes_of
from erv.policies import Policy, load_policy
from erv.settings import Settings, load_settings
from erv.shards import ShardReader

GROUP = 8  # completions per prompt, as in the paper


def settings_of(context: Context, completion: int | None = None) -> Settings:
    """All parameters, for a step at this size: adapters for 7b, half precision on a GPU, one process."""
    chosen, settings = SIZES[context.size], load_settings()
    lora = settings.grpo.lora.model_copy(update={"enabled": context.adapters})
    grpo = settings.grpo.model_copy(
        update={
            "prompts_per_step": chosen.prompts,
            "num_generations": GROUP,
            "max_completion_length": completion or chosen.completion,
            "num_iterations": 1,
            "gradient_checkpointing": False,
            "lora": lora,
        }
    )
    sft = settings.sft.model_copy(update={"batch_size": chosen.prompts * 4, "lora": lora, "packing": False})
    runtime = settings.runtime.model_copy(update={"device": context.device, "dtype": context.dtype})
    machine = settings.machine.model_copy(update={"accelerate": None, "processes": 1})
    return settings.model_copy(update={"grpo": grpo, "sft": sft, "runtime": runtime, "machine": machine})


def policy_of(context: Context, device: str | None = None) -> Policy:
    """A policy of this size with random weights, float32, without dropout."""
    policy = build_policy(SIZES[context.size], device or context.device)
    for module in policy.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return policy


def saved_policy(context: Context) -> Path:
    """The folder of such a policy; the reference of all-weight training is loaded from it."""
    folder = context.folder / "policy"
    if not folder.is_dir():
        policy_of(context, "cpu").save(folder)
    return folder


def loaded_policy(context: Context) -> Policy:
    """A policy to train by grpo; unless adapters train, from the folder that its reference is loaded from."""
    if context.adapters:
        return policy_of(context)
    policy = load_policy(saved_policy(context), device=context.device)
    policy.model.config._name_or_path = str(saved_policy(context))
    return policy


def clips_of(context: Context, count: int) -> ShardReader:
    """Clips of noise, below `folder/DATASET`."""
    return write_clips(context.folder / DATASET, SIZES[context.size], count)


def counted(policy: Policy) -> PolicySizes:
    """The sizes that the estimate of memory takes."""
    sizes = sizes_of(policy.model.config.to_dict(), "the policy")
    assert sizes is not None
    return sizes


def peak(estimate: Estimate, allocated: float, reserved: float) -> dict[str, Any]:
    """Peaks of a GPU beside the estimate of `erv.doctor.fit`, all in 10^9 bytes.

    Args:
        estimate: of the same step.
        allocated: most that tensors used.
        reserved: most that PyTorch took from the device, which is what has to fit.
    """
    expected = estimate.total / 1e9
    return {
        "peak_allocated_gb": round(allocated, 2),
        "peak_reserved_gb": round(reserved, 2),
        "estimated_gb": round(expected, 2),
        "peak_against_estimate": round(reserved / expected, 2),
    }


def peaks_now() -> tuple[float, float]:
    """Peaks since the last reset, in 10^9 bytes: what tensors used, and what PyTorch reserved."""
    return torch.cuda.max_memory_allocated() / 1e9, torch.cuda.max_memory_reserved() / 1e9
