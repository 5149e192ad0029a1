"""GRPO from a cold-start folder to a policy folder: rows, trainer, checkpoints, metrics, output.

The settings follow the paper, not TRL's defaults: the loss is a mean per sequence (`loss_type: grpo`), the KL
term is `exp(d) - d - 1` without an importance weight, rewards are a weighted sum, advantages are
(reward - mean) / (std + 1e-4) within the group, and there is one update per generation.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    PrinterCallback,
)
from trl import GRPOConfig

from erv.checkpoints import discard_unusable, latest_checkpoint
from erv.determinism import resolve_device, resolve_dtype, seed_everything
from erv.errors import DataError, SettingsError, TrainingError
from erv.files import model_folder
from erv.labels import LabelSpace
from erv.manifest import ClipRow
from erv.policies import Policy, load_policy
from erv.policies.common.arm import Arm, write_arm
from erv.policies.common.policy import ADAPTER
from erv.policies.common.processing import messages
from erv.prompts import Prompt
from erv.settings import GrpoSettings, LoraSettings, MachineSettings, RuntimeSettings, VariantSettings
from erv.shards import ShardReader
from erv.tracking.ran import note_trained
from erv.training.common.adapters import (
    is_sharded,
    lora_config,
    merge_adapter,
    prepare_for_lora,
    refuse_sharded_adapters,
    without_dropout,
    write_adapter,
)
from erv.training.common.allocator import keep_freed_memory
from erv.training.common.clip_features import ClipFeatures, policy_encoder
from erv.training.common.half_precision import frozen_linears_in
from erv.training.common.ranks import is_main, one_gpu_each
from erv.training.common.recomputing import recomputing
from erv.training.common.special_tokens import special_tokens_kept
from erv.training.common.throughput import OnMetrics, Throughput
from erv.training.grpo.checked_reward import CheckedReward
from erv.training.grpo.collapse import Diverged
from erv.training.grpo.engine.start import check_vllm, start_vllm
from erv.training.grpo.kept import Kept
from erv.training.grpo.trainer import OmniGRPOTrainer
from erv.training.grpo.validation import Validating, Validation
from erv.training.grpo.watch import OnSamples, Watcher, quiet_libraries
from erv.verifier.protocol import Verifier

logger = logging.getLogger(__name__)

Rewards = Sequence[tuple[str, Callable[..., Any], float]]

# What a policy folder holds besides the files of its processor.
MODEL_FILES = ("model*", "config.json", "generation_config.json", "adapter")


def build_rows(
    manifests: Iterable[Sequence[ClipRow]],
    shards: Mapping[str, ShardReader],
    prompt: Prompt | None = None,
    split: str = "train",
) -> list[dict[str, Any]]:
    """The clips of a split as rows for `train_grpo`.

    Args:
        manifests: the clips of each data set.
        shards: decoded clips by data set name. A clip that is in the manifest but not in the shards is in
            quarantine and is left out; the log says how many there are.
        prompt: what the policy is asked; the default if omitted.
        split: `train`, or `validation` for clips to measure on.

    Returns:
        `{"prompt", "clip", "solution", "dataset", "clip_id"}`, sorted by data set and clip id. The prompt of
        a clip without sound has no placeholder for sound.

    Raises:
        DataError: a manifest belongs to a data set whose shards are not given.
    """
    prompt = prompt or Prompt()
    rows, absent = [], 0
    for clip in (clip for manifest in manifests for clip in manifest if clip.split == split):
        if clip.dataset not in shards:
            raise DataError(f"the manifest of {clip.dataset} was given without its shards; give both")
        reader = shards[clip.dataset]
        if clip.clip_id not in reader:
            absent += 1
            continue
        names = LabelSpace.load(clip.dataset).names if "labels" in prompt.fields else ()
        asked = prompt.ask(names, clip.subtitle)
        rows.append(
            {
                "prompt": messages(prompt, asked, audio=clip.clip_id not in reader.silent),
                "clip": f"{clip.dataset}/{clip.clip_id}",
                "solution": f"<answer>{clip.label}</answer>",
                "dataset": clip.dataset,
                "clip_id": clip.clip_id,
            }
        )
    name = "training" if split == "train" else split
    logger.info("grpo: %d %s clips, %d more are in quarantine", len(rows), name, absent)
    return sorted(rows, key=lambda row: (row["dataset"], row["clip_id"]))


def variant_settings(variants: Mapping[str, VariantSettings], name: str) -> VariantSettings:
    """The variant of this name.

    Raises:
        SettingsError: there is no such variant.
    """
    try:
        return variants[name]
    except KeyError:
        known = ", ".join(sorted(variants))
        raise SettingsError(f"variants has no {name!r}, expected one of {known}") from None


def order_rows(rows: Sequence[dict[str, Any]], steps: int, per_step: int, seed: int) -> Dataset:
    """The rows in training order: `per_step` distinct clips for each of `steps` generations.

    Each pass is a new permutation; rows that do not fill a step are left for another pass. The whole order is
    fixed here, so that a resumed run needs to know only its position in it.

    Raises:
        TrainingError: there are fewer rows than one step takes.
    """
    if len(rows) < per_step:
        raise TrainingError(
            f"grpo.prompts_per_step is {per_step}, but there are only {len(rows)} training clips; lower it"
        )
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    while len(order) < steps * per_step:
        permutation = torch.randperm(len(rows), generator=generator).tolist()
        order += permutation[: len(rows) // per_step * per_step]
    return Dataset.from_list(list(rows)).select(order[: steps * per_step])


def total_steps(settings: GrpoSettings, clips: int) -> int:
    """Optimiser steps of a run: `max_steps` if it is set, otherwise as many as `epochs` need."""
    if settings.max_steps is not None:
        return settings.max_steps
    assert settings.epochs is not None
    return settings.epochs * (clips // settings.prompts_per_step) * settings.num_iterations


def train_grpo(
    policy_folder: Path,
    rows: Sequence[dict[str, Any]],
    shards: Mapping[str, ShardReader],
    rewards: Rewards,
    settings: GrpoSettings,
    *,
    output: Path,
    checkpoints: Path,
    on_metrics: OnMetrics,
    seed: int,
    runtime: RuntimeSettings,
    machine: MachineSettings,
    kept: Sequence[Kept] = (),
    on_samples: OnSamples | None = None,
    verifier: Verifier | None = None,
    thinks: bool = True,
    validation: Validation | None = None,
) -> Path:
    """Optimises a cold-start policy against rewards and writes the result as a policy folder.

    Resumes from the newest complete checkpoint in `checkpoints`, with the same result as an uninterrupted
    run. Training ends early, with success, if every completion has earned the maximum for `collapse_patience`
    steps.

    Args:
        policy_folder: the cold start, a `from_pretrained` folder. It is also the reference of the KL term.
        rows: rows from `build_rows`, or rows of the same form.
        shards: decoded clips by data set name.
        rewards: (name, callable, weight); called with `completions`, `prompts` and the rows' columns.
        settings: the section `grpo`.
        output: folder to write; replaced as a whole.
        checkpoints: folder outside the outputs, owned by exactly these inputs (see `erv.checkpoints`).
        on_metrics: called after each step with its metrics and its number, from 1.
        seed: seed for order, generation and adapters.
        runtime: device, precision, threads.
        machine: processes, memory of features, and the completions of a step that go through the model at
            once. Fewer take less memory and more time; the update is the same.
        kept: states of the rewards that belong into the checkpoints.
        on_samples: called with some completions every `sample_steps` steps, at the last one, and where
            training ends early.
        verifier: reads the sentences of these; it must not change what the rewards see.
        thinks: False makes the policy answer at once, after an empty explanation that it is given: in
            training and, through its `arm.json`, wherever it is loaded.
        validation: held-out clips to measure the policy on meanwhile; the result is the same without.

    Returns:
        `output`: weights and processor; with LoRA also `adapter/`, already merged into the weights.

    Raises:
        TrainingError: there are too few clips; a reward fails; a loss, gradient or weight is not finite; no
            group had different rewards for `collapse_patience` steps; the reference is not the cold start; or
            `settings.generation` is vllm, which is not installed, failed, or can't serve this policy.
    """
    by_vllm = settings.generation == "vllm"
    if by_vllm:
        check_vllm(runtime, machine)
    seed_everything(seed, runtime.threads)
    keep_freed_memory()
    device = resolve_device(runtime.device)
    dtype = resolve_dtype(runtime.dtype, device)  # half precision is autocast; a CPU refuses it
    memory = round(machine.feature_cache_gb * 1e9)
    arm = Arm(thinks=thinks)
    by_sentence = settings.credit == "sentence"
    steps = total_steps(settings, len(rows))
    order = order_rows(rows, steps // settings.num_iterations, settings.prompts_per_step, seed)
    checkpoints.mkdir(parents=True, exist_ok=True)
    if is_main():  # it hashes every checkpoint; the others wait before they resume
        discard_unusable(checkpoints)
    with quiet_libraries(), Throughput(device) as throughput, ExitStack() as ending:
        watcher = Watcher(
            settings,
            steps,
            rewards,
            throughput,
            on_metrics,
            on_samples,
            verifier,
            sample_steps=machine.grpo.sample_steps,
        )
        validating = None if validation is None else Validating(validation, on_metrics)
        policy = load_policy(policy_folder)
        arguments = grpo_config(settings, steps, rewards, policy, checkpoints, seed, runtime, machine)
        one_gpu_each("grpo", arguments.n_gpu)
        trained = prepare_for_lora(policy, settings.lora, arguments.device, dtype)
        trained.model.config._name_or_path = str(policy_folder)  # where TRL loads the reference from
        if settings.freeze_projectors:
            trained.model.freeze_projectors()
        without_dropout(trained.model)
        engine = ending.enter_context(start_vllm(trained, settings, runtime, machine)) if by_vllm else None
        if engine is not None:
            engine.ready()  # it measures the free memory of the GPU, which the trainer would change meanwhile
        trainer = OmniGRPOTrainer(
            model=trained.model,
            args=arguments,
            reward_funcs=[CheckedReward(name, reward, credited=by_sentence) for name, reward, _ in rewards],
            train_dataset=order,
            processing_class=trained.processor.tokenizer,
            peft_config=lora_config(trained.model, settings.lora) if settings.lora.enabled else None,
            callbacks=[watcher, *([validating] if validating is not None else [])],
            watcher=watcher,
            kept=kept,
            clip_features=ClipFeatures(policy_encoder(trained, dtype), shards, memory_bytes=memory),
            question=trained.processor.question_inputs(),
            static_decode=machine.grpo.static_decode,
            credit_sentences=by_sentence,
            begins=arm.begins,
            greedy_rollout=settings.greedy_rollout,
            engine=engine,
        )
        if validating is not None:
            validating.ask(trainer.greedy_answers)
        refuse_sharded_adapters(trainer, "grpo", settings.lora)
        note_trained(trainer.model.parameters())
        trainer.remove_callback(PrinterCallback)
        _check_reference(trainer)
        trainer.accelerator.wait_for_everyone()
        newest = latest_checkpoint(checkpoints)
        if newest is not None:
            logger.info("grpo: resuming from %s", newest.name)
            trainer.load_kept(newest)
        try:
            frozen = _frozen_models(trainer, settings.lora)
            with frozen_linears_in(dtype, frozen), special_tokens_kept(trained.model):
                trainer.train(resume_from_checkpoint=str(newest) if newest else None)
            if validating is not None:  # training may have ended early, or resumed at its last step
                validating.measure(trainer.state)
            trainer.check_weights(trainer.state.global_step)
        except Diverged as error:
            good = latest_checkpoint(checkpoints, until=watcher.last_good())
            where = f"the last good checkpoint is {good}" if good else "there is no earlier checkpoint"
            raise TrainingError(f"{error}; {where}") from error
        return _write_policy(trainer, policy, settings.lora, policy_folder, output, arm)


def _frozen_models(trainer: OmniGRPOTrainer, lora: LoraSettings) -> list[Any]:
    """What may hold its frozen weights in half precision: the base under adapters, and the reference."""
    if is_sharded(trainer):
        return []  # shards of mixed types can't be gathered as one
    models = [trainer.model] if lora.enabled else []
    if trainer.ref_model is not None:
        models.append(trainer.ref_model.requires_grad_(False))
    return models


def _check_reference(trainer: OmniGRPOTrainer) -> None:
    """Makes sure that the reference that TRL loaded equals the policy before the first step."""
    if trainer.ref_model is None or is_sharded(trainer):
        return  # there is no reference, or it is sharded by now
    reference = trainer.accelerator.unwrap_model(trainer.ref_model).state_dict()
    for name, value in trainer.model.state_dict().items():
        if not torch.equal(value, reference[name]):
            raise TrainingError(f"the reference of the KL term differs from the cold start in {name}")


def _write_policy(
    trainer: OmniGRPOTrainer,
    policy: Policy,
    lora: LoraSettings,
    cold_start: Path,
    output: Path,
    arm: Arm,
) -> Path:
    """Writes weights and processor next to the target, then renames. One process writes, all wait for it."""
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if is_sharded(trainer) else None
    if trainer.accelerator.is_main_process:
        base = policy.model if lora.quantize != "none" else None
        _write_files(model, base, state, cold_start, output, arm)
    trainer.accelerator.wait_for_everyone()
    return output


def _write_files(
    model: Any, base: Any, state: Mapping[str, Any] | None, cold_start: Path, output: Path, arm: Arm
) -> None:
    """Writes the trained policy.

    Args:
        model: the trained model, possibly with adapters.
        base: the model to merge adapters into if the trained model's weights are rounded; otherwise None.
        state: the weights, if the model holds only shards of them.
        cold_start: the folder from which the processor is copied.
        output: the folder to write.
        arm: whether the policy thinks.
    """
    with model_folder(output) as folder:
        # The processor's files are taken as they are: one that was used would save its last truncation too.
        others = shutil.ignore_patterns(*MODEL_FILES)
        shutil.copytree(cold_start, folder, ignore=others, dirs_exist_ok=True)
        if hasattr(model, "peft_config"):
            write_adapter(model, folder / ADAPTER)
            model = model.merge_and_unload() if base is None else merge_adapter(base, folder / ADAPTER)
        model.save_pretrained(folder, state_dict=state)
        if not arm.thinks:
            write_arm(arm, folder)


def grpo_config(
    settings: GrpoSettings,
    steps: int,
    rewards: Rewards,
    policy: Policy,
    checkpoints: Path,
    seed: int,
    runtime: RuntimeSettings,
    machine: MachineSettings,
) -> GRPOConfig:
    """TRL's configuration of a run. See `train_grpo` for the arguments; `steps` comes from `total_steps`.

    Raises:
        TrainingError: the completions of a step can't be divided among the processes or passes.
    """
    on_cpu = resolve_device(runtime.device).type == "cpu"
    completions = settings.prompts_per_step * settings.num_generations
    if completions % machine.processes:
        raise TrainingError(
            f"the {completions} completions of a step (grpo.prompts_per_step x grpo.num_generations) can't be"
            f" shared out to {machine.processes} processes (machine.processes); make one divide the other"
        )
    own = completions // machine.processes
    per_pass = machine.grpo.rows_per_pass or own
    if own % per_pass:
        raise TrainingError(
            f"{per_pass} rows per pass (machine.grpo.rows_per_pass) don't divide the {own} completions of a"
            " step in each process (grpo.prompts_per_step x grpo.num_generations / machine.processes)"
        )
    corrected = {}
    if settings.generation == "vllm":
        corrected = {
            "vllm_importance_sampling_mode": "token_truncate",
            "vllm_importance_sampling_clip_max": settings.generation_ratio_cap,
        }
    return GRPOConfig(
        **corrected,
        output_dir=str(checkpoints),
        seed=seed,
        use_cpu=on_cpu,
        bf16=runtime.dtype == "bfloat16",
        fp16=runtime.dtype == "float16",
        max_steps=steps,
        per_device_train_batch_size=per_pass,
        gradient_accumulation_steps=own // per_pass,
        num_generations=settings.num_generations,
        num_iterations=settings.num_iterations,
        max_completion_length=settings.max_completion_length,
        temperature=settings.temperature,
        generation_kwargs={"suppress_tokens": policy.model.placeholder_ids},
        learning_rate=settings.learning_rate,
        beta=settings.beta,
        loss_type=settings.loss_type,
        scale_rewards=settings.scale_rewards,
        epsilon=settings.epsilon,
        epsilon_high=settings.epsilon_high,
        importance_sampling_level=settings.importance_sampling,
        use_bias_correction_kl=False,
        reward_weights=[weight for _, _, weight in rewards],
        shuffle_dataset=False,
        save_steps=machine.grpo.save_steps,
        save_total_limit=None,
        logging_steps=1,
        logging_nan_inf_filter=False,
        **recomputing(settings.gradient_checkpointing),
        ddp_find_unused_parameters=False,  # every pass uses every trained weight
        disable_tqdm=True,
        report_to=[],
        dataloader_pin_memory=not on_cpu,
    )
