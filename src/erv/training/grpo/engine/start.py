"""Starts vLLM for a policy, where this machine has what it takes."""

from __future__ import annotations

from pathlib import Path

from erv.determinism import resolve_device
from erv.errors import TrainingError
from erv.policies import Policy
from erv.settings import GrpoSettings, MachineSettings, RuntimeSettings
from erv.training.grpo.engine.client import WORKER, EngineClient
from erv.training.grpo.engine.lacks import vllm_fault
from erv.training.grpo.engine.prompts import check_embeds
from erv.training.grpo.engine.text_model import write_text_folder


def check_vllm(runtime: RuntimeSettings, machine: MachineSettings) -> None:
    """Raises `TrainingError` if vLLM can't run here; it loads nothing."""
    if resolve_device(runtime.device).type != "cuda":
        raise TrainingError(
            "grpo.generation is vllm, which needs a GPU, and this machine has none; set grpo.generation:"
            " transformers"
        )
    fault = vllm_fault(Path(machine.grpo.vllm_python))
    if fault is not None:
        raise TrainingError(fault)


def start_vllm(
    policy: Policy, settings: GrpoSettings, runtime: RuntimeSettings, machine: MachineSettings
) -> EngineClient:
    """Starts vLLM for the language model of a policy.

    Args:
        policy: as `load_policy` returns it, with or without adapters.
        settings: the section `grpo`.
        runtime: its precision.
        machine: the interpreter that has vLLM, and its share of the GPU's memory.

    Raises:
        TrainingError: vLLM can't serve this policy, or its process can't be started.
    """
    check_embeds(policy.model)
    longest = len(policy.processor.prompt_ids()) + settings.max_completion_length
    return EngineClient(
        [machine.grpo.vllm_python, str(WORKER)],
        lambda folder: write_text_folder(policy.model, policy.processor.tokenizer, folder),
        {"dtype": runtime.dtype, "memory": machine.grpo.vllm_memory, "longest": longest},
    )
