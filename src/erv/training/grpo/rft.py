"""Rejection sampling fine-tuning: learning from what the cold start itself gets right.

This variant shows what GRPO adds beyond its rewards. The cold start answers the prompts that GRPO would see,
equally often and at the same temperature. Completions for which every reward reaches a mark are kept, each
once per clip, and learned by the code of `sft`.

A reward that can't score a completion has no say, as in GRPO: for a clip whose emotion the verifier doesn't
know, the others decide. How many were accepted that way is logged and among the metrics.

Equal compute: GRPO samples `prompts_per_step` x `num_generations` completions in each generation, and runs as
many forward and backward in each optimiser step. So does this variant: it repeats the accepted completions in
shuffled passes, with GRPO's learning rate, linear schedule and number of steps. Only GRPO also runs its
reference, with one forward pass per sampled completion. Both counts are among the metrics.

Rollouts are written one generation at a time, each with its own seed: an interrupted run continues where it
stopped, with the same result as an uninterrupted one. Several processes share the generations.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from erv.determinism import resolve_device, resolve_dtype, seed_everything
from erv.errors import DataError, TrainingError
from erv.files import read_document, sha256_of_text, write_document
from erv.model_folders import apply_chat
from erv.policies import Policy, load_policy
from erv.rewards.answers import bare
from erv.settings import GrpoSettings, MachineSettings, RuntimeSettings, SftSettings
from erv.shards import ShardReader
from erv.training.common.clip_features import ClipFeatures, policy_encoder
from erv.training.common.collate import Example, completion_ids
from erv.training.common.fine_tuning import Course, fine_tune, shuffled_passes
from erv.training.common.throughput import OnMetrics
from erv.training.grpo.checked_reward import CheckedReward
from erv.training.grpo.drift import emotion
from erv.training.grpo.grpo import Rewards, order_rows, total_steps

logger = logging.getLogger(__name__)

ROLLOUTS = "rollouts"  # folder next to the checkpoints


@dataclass(frozen=True)
class Rollout:
    """A completion of the cold start and its rewards.

    Attributes:
        clip: `<data set>/<clip id>`.
        label: the true emotion, under one name for all data sets (see `drift.emotion`).
        completion: the text, including tags.
        rewards: value by name; None if the completion can't be scored.
    """

    clip: str
    label: str
    completion: str
    rewards: dict[str, float | None]

    def passes(self, mark: float) -> bool:
        """Whether every reward that could score it is at least `mark`; without any, it doesn't pass."""
        scored = [value for value in self.rewards.values() if value is not None]
        return bool(scored) and min(scored) >= mark

    @property
    def partly_scored(self) -> bool:
        """Whether a reward could not score it."""
        return None in self.rewards.values()


def train_rft(
    policy_folder: Path,
    rows: Sequence[dict[str, Any]],
    shards: Mapping[str, ShardReader],
    rewards: Rewards,
    settings: GrpoSettings,
    *,
    passes_at: float,
    output: Path,
    checkpoints: Path,
    on_metrics: OnMetrics,
    seed: int,
    runtime: RuntimeSettings,
    machine: MachineSettings,
) -> Path:
    """Fine-tunes a cold start on its own accepted completions and writes the result as a policy folder.

    Args:
        policy_folder: the cold start, a `from_pretrained` folder.
        rows: rows from `grpo.build_rows`.
        shards: decoded clips by data set name.
        rewards: (name, callable, weight), called as in GRPO; the weights are ignored.
        settings: the section `grpo`.
        passes_at: a completion is accepted if each of its rewards is at least this, of those that could score
            it.
        output: folder to write; replaced as a whole.
        checkpoints: folder outside the outputs, owned by exactly these inputs (see `erv.checkpoints`).
        on_metrics: called with the counts from `measure` and step 0, then as in `fine_tune`.
        seed: seed for order, sampling and adapters.
        runtime: device, precision, threads.
        machine: memory of features, completions in a pass.

    Returns:
        `output`.

    Raises:
        TrainingError: there are too few clips, a reward fails, no completion passes, or see `fine_tune`.
    """
    seed_everything(seed, runtime.threads)
    steps = total_steps(settings, len(rows))
    batch = settings.prompts_per_step * settings.num_generations
    folder = checkpoints / ROLLOUTS
    generations = steps // settings.num_iterations
    order = order_rows(rows, generations, settings.prompts_per_step, seed)
    sample_rollouts(
        policy_folder, order, shards, rewards, settings, folder, seed=seed, runtime=runtime, machine=machine
    )
    rollouts = [item for number in range(generations) for item in read_rollouts(rollout_file(folder, number))]
    accepted = accept(rollouts, passes_at)
    if not accepted:
        raise TrainingError(
            f"grpo: none of {len(rollouts)} completions of the cold start has every reward"
            f" ({', '.join(name for name, _, _ in rewards)}) at {passes_at} or more, so there is nothing to"
            " learn from; lower passes_at of the variant, or train the cold start longer"
        )
    measured = measure(rollouts, accepted, passes_at) | {"rollouts/trained": float(steps * batch)}
    policy = load_policy(policy_folder)
    examples = build_examples(policy, accepted, rows)
    first = _state(runtime).is_main_process
    if first:
        on_metrics(measured, 0)
        partly = [item for item in accepted if item.partly_scored]
        if partly:
            logger.warning(
                "grpo: %d of %d accepted completions could not be scored by every reward, so the others"
                " decided; their emotions: %s",
                len(partly),
                len(accepted),
                ", ".join(sorted({item.label for item in partly})),
            )
        logger.info("grpo: %d sampled completions, %d distinct ones pass", len(rollouts), len(accepted))
    course = Course(
        name="grpo",
        train=examples,
        order=shuffled_passes(len(examples), steps * batch, seed),
        schedule="linear",
        freeze_projectors=settings.freeze_projectors,
        freeze_question_encoder=False,
    )
    fine_tune(
        policy,
        course,
        shards,
        _learning(settings, steps, batch),
        checkpoints=checkpoints,
        on_metrics=on_metrics,
        seed=seed,
        runtime=runtime,
        machine=machine,
        rows_per_pass=machine.grpo.rows_per_pass,
        save_steps=machine.grpo.save_steps,
        output=output,
    )
    return output


def sample_rollouts(
    policy_folder: Path,
    order: Sequence[dict[str, Any]],
    shards: Mapping[str, ShardReader],
    rewards: Rewards,
    settings: GrpoSettings,
    folder: Path,
    *,
    seed: int,
    runtime: RuntimeSettings,
    machine: MachineSettings,
) -> None:
    """Samples and scores the generations that the folder does not have yet, one file per generation.

    Args:
        policy_folder: folder of the policy that answers.
        order: rows in training order, `prompts_per_step` for each generation.
        shards: decoded clips by data set name.
        rewards: see `train_rft`.
        settings: the section `grpo`.
        folder: the folder of the rollout files.
        seed: seed for sampling, combined with the number of the generation.
        runtime: device, precision, threads.
        machine: memory of features, completions in a pass.
    """
    state = _state(runtime)
    generations = len(order) // settings.prompts_per_step
    mine = range(state.process_index, generations, state.num_processes)
    missing = [number for number in mine if not _is_kept(rollout_file(folder, number))]
    if len(missing) < len(mine):
        logger.info("grpo: resuming rollouts, %d of %d exist", len(mine) - len(missing), len(mine))
    if missing:
        checked = [CheckedReward(name, reward) for name, reward, _ in rewards]
        policy = load_policy(policy_folder, device=state.device)
        features = ClipFeatures(
            policy_encoder(policy, resolve_dtype(runtime.dtype, policy.device)),
            shards,
            memory_bytes=round(machine.feature_cache_gb * 1e9),
        )
        for number in missing:
            start = number * settings.prompts_per_step
            rows = [order[place] for place in range(start, start + settings.prompts_per_step)]
            rows = [row for row in rows for _ in range(settings.num_generations)]
            texts = _generate(policy, features, rows, settings, seed=_seed(seed, number), runtime=runtime)
            write_rollouts(_score(rows, texts, checked), rollout_file(folder, number))
            logger.info("grpo: rollouts %d of %d", number + 1, generations)
    state.wait_for_everyone()


def rollout_file(folder: Path, number: int) -> Path:
    """The file with the completions of a generation."""
    return folder / f"{number:06d}.json"


def write_rollouts(rollouts: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes the completions of one generation with the sha256 of their JSON."""
    write_document({"sha256": _digest(rollouts), "rollouts": rollouts}, path)


def read_rollouts(path: Path) -> list[Rollout]:
    """The completions of one generation, in the order in which they were sampled.

    Raises:
        DataError: the file is missing, or not as it was written.
    """
    content = read_document(path, "grpo")
    try:
        if content["sha256"] == _digest(content["rollouts"]):
            return [Rollout(**item) for item in content["rollouts"]]
    except (LookupError, TypeError):
        pass
    raise DataError(f"{path}: not as it was written; delete it and run `dvc repro grpo` again")


def _is_kept(path: Path) -> bool:
    """Whether a generation is there; a damaged one is sampled again, which gives the same completions."""
    if not path.exists():
        return False
    try:
        read_rollouts(path)
    except DataError as error:
        logger.warning("grpo: kept rollouts are damaged, sampling them again: %s", error)
        return False
    return True


def _digest(rollouts: Any) -> str:
    return sha256_of_text(json.dumps(rollouts))


def accept(rollouts: Sequence[Rollout], mark: float) -> list[Rollout]:
    """The rollouts that pass, each text once per clip, sorted by clip and text."""
    found = {(item.clip, item.completion): item for item in rollouts if item.passes(mark)}
    return [found[key] for key in sorted(found)]


def measure(rollouts: Sequence[Rollout], accepted: Sequence[Rollout], mark: float) -> dict[str, float]:
    """Counts of sampled and accepted completions, and the share that passes, overall and by true emotion.

    With `rollouts/accepted_partly_scored` if there are accepted ones that a reward could not score.
    """
    sampled = Counter(item.label for item in rollouts)
    passing = Counter(item.label for item in rollouts if item.passes(mark))
    partly = sum(item.partly_scored for item in accepted)
    return {
        "rollouts/sampled": float(len(rollouts)),
        "rollouts/accepted": float(len(accepted)),
        "rollouts/accepted_clips": float(len({item.clip for item in accepted})),
        **({"rollouts/accepted_partly_scored": float(partly)} if partly else {}),
        "rollouts/passing_share": passing.total() / sampled.total(),
        **{f"rollouts/passing_share/{label}": passing[label] / sampled[label] for label in sorted(sampled)},
    }


def build_examples(
    policy: Policy, accepted: Sequence[Rollout], rows: Sequence[Mapping[str, Any]]
) -> list[Example]:
    """Accepted completions as examples, in the same order; texts are tokenized as in the cold start.

    Args:
        policy: its processor tokenizes.
        accepted: completions of clips that are in `rows`.
        rows: rows from `grpo.build_rows`, with what was asked about each clip.
    """
    named = {item.clip for item in accepted}
    prompts = _prompts(policy, [row for row in rows if row["clip"] in named])
    return [
        Example(key=item.clip, prompt=prompts[item.clip], completion=completion_ids(policy, item.completion))
        for item in accepted
    ]


def _state(runtime: RuntimeSettings) -> Any:
    """The number of this process, the number of processes, and this process's device."""
    from accelerate import PartialState

    return PartialState(cpu=resolve_device(runtime.device).type == "cpu")


def _seed(seed: int, number: int) -> int:
    return (seed * 1_000_003 + number + 1) % 2**63


def _prompts(policy: Policy, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Token ids of what is asked about each clip of the rows, the same turns as in GRPO."""
    tokenizer = policy.processor.tokenizer
    where = getattr(tokenizer, "name_or_path", None) or "the policy"
    turns = {row["clip"]: row["prompt"] for row in rows}
    return {
        clip: list(
            apply_chat(tokenizer, asked, where=where, add_generation_prompt=True, return_dict=True)[
                "input_ids"
            ]
        )
        for clip, asked in turns.items()
    }


def _generate(
    policy: Policy,
    features: ClipFeatures,
    rows: Sequence[dict[str, Any]],
    settings: GrpoSettings,
    *,
    seed: int,
    runtime: RuntimeSettings,
) -> list[str]:
    """One completion per row."""
    tokenizer, device = policy.processor.tokenizer, policy.device
    keys = list(dict.fromkeys(row["clip"] for row in rows))
    prompts = _prompts(policy, rows)
    length = max(map(len, prompts.values()))
    padding = {key: length - len(prompt) for key, prompt in prompts.items()}
    ids = [[tokenizer.pad_token_id] * padding[row["clip"]] + prompts[row["clip"]] for row in rows]
    mask = [[0] * padding[row["clip"]] + [1] * len(prompts[row["clip"]]) for row in rows]
    inputs = {
        "input_ids": torch.tensor(ids),
        "attention_mask": torch.tensor(mask),
        "clip_index": torch.tensor([keys.index(row["clip"]) for row in rows]),
        **features(keys),
        **policy.processor.question_inputs(),
    }
    dtype = resolve_dtype(runtime.dtype, device)
    with (
        torch.random.fork_rng(devices=[torch.cuda.current_device()] if device.type == "cuda" else []),
        torch.inference_mode(),
        torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32),
    ):
        torch.manual_seed(seed)
        generated = policy.model.generate(
            **{name: value.to(device) for name, value in inputs.items()},
            generation_config=GenerationConfig(
                max_new_tokens=settings.max_completion_length,
                do_sample=True,
                temperature=settings.temperature,
                top_k=0,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                suppress_tokens=policy.model.placeholder_ids,
            ),
        )
    texts: list[str] = tokenizer.batch_decode(generated[:, length:], skip_special_tokens=True)
    return texts


def _score(
    rows: Sequence[dict[str, Any]], texts: Sequence[str], rewards: Sequence[CheckedReward]
) -> list[dict[str, Any]]:
    """Scored rollouts in the form of the rollout file; the rewards get the same arguments as in GRPO."""
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    columns = {name: [row[name] for row in rows] for name in rows[0] if name != "prompt"}
    prompts = [row["prompt"] for row in rows]
    values = {
        reward.__name__: reward(completions=completions, prompts=prompts, **columns) for reward in rewards
    }
    return [
        {
            "clip": row["clip"],
            "label": emotion(row["solution"], row["dataset"]) or bare(row["solution"]),
            "completion": text,
            "rewards": {name: value[place] for name, value in values.items()},
        }
        for place, (row, text) in enumerate(zip(rows, texts, strict=True))
    ]


def _learning(settings: GrpoSettings, steps: int, batch: int) -> SftSettings:
    """GRPO's settings as fine-tuning settings; what `grpo` does not set is TRL's default for GRPO."""
    return SftSettings(
        max_steps=steps,
        epochs=None,
        batch_size=batch,
        packing=False,
        gradient_checkpointing=settings.gradient_checkpointing,
        learning_rate=settings.learning_rate,
        warmup_share=0.0,
        weight_decay=0.0,
        max_grad_norm=1.0,
        lora=settings.lora,
    )
