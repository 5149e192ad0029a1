"""Low-rank adapters through PEFT: where they go, how they are saved, and four-bit bases (QLoRA)."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from erv.errors import TrainingError
from erv.model_folders import load_adapter, load_model
from erv.policies import Policy
from erv.settings import LoraSettings
from erv.training.common.pins import installed_version, version_fault

FOUR_BITS = Path("requirements/lora-nf4.txt")  # the only place that names the version


def lora_config(model: Any, settings: LoraSettings) -> Any:
    """Adapters on the attention projections of the language model only.

    The targets are full module names: short ones such as `q_proj` would match the towers too.
    """
    from peft import LoraConfig

    language = {id(module) for module in model.get_decoder().modules()}
    targets = [
        name
        for name, module in model.named_modules()
        if id(module) in language and name.rpartition(".")[2] in ("q_proj", "k_proj", "v_proj", "o_proj")
    ]
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )


def write_adapter(model: Any, folder: Path) -> None:
    """Saves the adapter without PEFT's card and without the path of this machine that it puts into it.

    PEFT keeps the names of the adapted modules in a set: they are sorted, for equal bytes from equal runs.
    """
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": None, "target_modules": sorted(config["target_modules"])}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def merge_adapter(model: Any, folder: Path) -> Any:
    """A full-precision model with an adapter from a folder added to its weights."""
    return load_adapter(model, folder).merge_and_unload()


def four_bit_copy(policy: Policy, settings: LoraSettings, device: torch.device, dtype: torch.dtype) -> Policy:
    """A copy of a policy on a GPU, for QLoRA, with its language model's linear layers in four bits (NF4).

    Towers, projectors and head keep their precision. The policy itself is not changed: what the adapters
    learn is later added to its weights, because the copy's weights are rounded. No test covers this, since it
    needs a GPU and bitsandbytes.

    Args:
        policy: the base, on the CPU.
        settings: the section `lora`.
        device: the copy's device.
        dtype: the type that the copy computes in.

    Raises:
        TrainingError: there is no GPU, or not the bitsandbytes of `requirements/lora-nf4.txt`.
    """
    if device.type != "cuda":
        raise TrainingError(
            f"lora.quantize is {settings.quantize}, which needs a GPU (runtime.device is {device.type});"
            " set it to none"
        )
    if fault := four_bit_fault(installed_version("bitsandbytes")):
        raise TrainingError(f"lora.quantize is {settings.quantize}, but this machine has {fault}")
    from transformers import BitsAndBytesConfig

    language = {id(module) for module in policy.model.get_decoder().modules()}
    kept = [
        name
        for name, module in policy.model.named_modules()
        if isinstance(module, torch.nn.Linear) and id(module) not in language
    ]
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=settings.quantize,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=kept,
    )
    with tempfile.TemporaryDirectory() as folder:  # a base in the released format can't be quantized directly
        policy.model.save_pretrained(folder)
        model = load_model(
            type(policy.model), folder, quantization_config=config, dtype=dtype, device_map={"": device}
        )
    model.freeze_towers()
    return Policy(model=model.eval(), processor=policy.processor)


def four_bit_fault(version: str | None, workspace: Path = Path()) -> str | None:
    """What is wrong with a version of bitsandbytes (None: there is none), with the remedy; or None."""
    fault = version_fault("bitsandbytes", version, workspace / FOUR_BITS)
    return fault and f"{fault}; install it with `pip install -r {FOUR_BITS}`, or set lora.quantize: none"


def prepare_for_lora(
    policy: Policy, settings: LoraSettings, device: torch.device, dtype: torch.dtype
) -> Policy:
    """The policy, moved to the device; with `quantize` a four-bit copy there, see `four_bit_copy`."""
    if settings.enabled and settings.quantize != "none":
        return four_bit_copy(policy, settings, device, dtype)
    policy.model.to(device)
    return policy


def without_dropout(model: Any) -> None:
    """Switches dropout off: a policy must match its reference, and itself in generation.

    In fine-tuning only frozen parts would add this noise: the language models have no dropout.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def is_sharded(trainer: Any) -> bool:
    """Whether a process of a `transformers` trainer may hold only a part of the weights."""
    return bool(trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)


def refuse_sharded_adapters(trainer: Any, stage: str, settings: LoraSettings) -> None:
    """Raises `TrainingError` for adapters on sharded weights, into which they can't be merged."""
    if settings.enabled and is_sharded(trainer):
        raise TrainingError(
            f"{stage}: adapters can't be merged into sharded weights; set machine.accelerate"
            " to ddp, or lora.enabled to false"
        )
