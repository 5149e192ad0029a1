"""Four ways to run the same GRPO step.

- erv: what the stage does: towers once per clip, the prompt once per clip and pass, no padding
- before: as the stage did it at first, see `grpo_before.py`
- reencoding: also one batch, but towers, projectors and prompt run for every completion in every pass
- released: the released trainer's way: one clip at a time, its completions by plain `generate`, towers,
  projectors and prompt for every completion in both scorings; the gradients of the clips are summed

All compute the same: `agree` compares log-probabilities, loss and gradients on the same completions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback
from trl.models import unwrap_model_for_generation

from benchmarks.grpo_before import BeforeTrainer
from benchmarks.grpo_measured import SMALL, MeasuredTrainer, Seen, Stopwatch
from erv.determinism import resolve_dtype
from erv.policies import Policy
from erv.settings import GrpoSettings, RuntimeSettings, load_settings
from erv.shards import Clip, ShardReader
from erv.training.common.clip_features import ClipFeatures, policy_encoder
from erv.training.grpo import grpo
from erv.training.grpo.checked_reward import CheckedReward
from erv.training.grpo.shared_prompts import SharedPrompt
from erv.training.grpo.token_scores import TokenScores
from erv.training.grpo.trainer import OmniGRPOTrainer

Tensors = dict[str, torch.Tensor]


class ReencodingTrainer(MeasuredTrainer):
    """Takes prepared clips instead of features, gives every row its own clip, and shares no prompt."""

    def _features_of(self, clip_index: torch.Tensor) -> Tensors:
        table = self._table[self._mode]
        return {name: value[clip_index] for name, value in table.items()} | self._question

    def _prompt_of(
        self, model: Any, prompt_ids: torch.Tensor, prompt_mask: torch.Tensor, clip_index: torch.Tensor
    ) -> SharedPrompt:
        inputs = {
            "input_ids": prompt_ids,
            "attention_mask": prompt_mask,
            "position_ids": self._positions(model, prompt_ids, prompt_mask),
            **self._features_of(clip_index),
        }
        return SharedPrompt(inputs, torch.arange(len(prompt_ids), device=prompt_ids.device))

    def _score(
        self, model: Any, ids: torch.Tensor, mask: torch.Tensor, keep: int, clip_index: torch.Tensor
    ) -> TokenScores:
        labels = ids.masked_fill(mask == 0, -100)[:, -keep - 1 :]
        labels[:, 0] = -100
        with _last_positions(self._inner(model), keep + 1):
            scores = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=self._positions(model, ids, mask),
                labels=labels,
                fused_lm_head=True,
                **self._features_of(clip_index),
            )
        return TokenScores(scores.log_probs, scores.entropy)


class ReleasedTrainer(ReencodingTrainer):
    """One clip at a time; its completions by plain `generate`, which runs the towers once."""

    prompts_per_pass = 1

    def _write(
        self, prompt_ids: list[list[int]], images: Any, fields: Any, generations: int, tools: bool = False
    ) -> tuple[list[list[int]], Any]:
        assert self._clip_index is not None
        ids = torch.tensor(prompt_ids, device=self.accelerator.device)
        with (
            unwrap_model_for_generation(
                self.model_wrapped, self.accelerator, generation_kwargs=self.generation_kwargs
            ) as model,
            torch.no_grad(),
            self.accelerator.autocast(),
        ):
            output = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                generation_config=self.generation_config,
                **OmniGRPOTrainer._features_of(self, self._clip_index),
            )
        return [self._until_end(row) for row in output[:, ids.size(1) :].tolist()], None


WAYS: dict[str, type[MeasuredTrainer]] = {
    "erv": MeasuredTrainer,
    "before": BeforeTrainer,
    "reencoding": ReencodingTrainer,
    "released": ReleasedTrainer,
}


@contextmanager
def _last_positions(inner: Any, count: int) -> Iterator[None]:
    """Within, the model returns hidden states only for the last positions, so the head runs on no others."""

    def cut(module: Any, inputs: Any, outputs: Any) -> Any:
        outputs.last_hidden_state = outputs.last_hidden_state[:, -count:]
        return outputs

    handle = inner.register_forward_hook(cut)
    try:
        yield
    finally:
        handle.remove()


def _reward(completions: list[Any], completion_ids: list[list[int]], **columns: Any) -> list[float]:
    """A reward that costs nothing and differs within a group."""
    return [float(sum(ids) % 7) for ids in completion_ids]


def make_trainer(
    way: str,
    policy: Policy,
    readers: Mapping[str, ShardReader],
    settings: GrpoSettings,
    runtime: RuntimeSettings,
    output: Path,
    ending: bool = False,
    rows: Sequence[dict[str, Any]] | None = None,
    rewards: grpo.Rewards = (),
) -> MeasuredTrainer:
    """A trainer for one of the ways; its policy's folder is `model.config._name_or_path`.

    Completions never end before their full length, so all ways write the same number of tokens; unless
    `ending` is set. `rows` are those of `grpo.build_rows`, or all clips of the readers without a truth;
    without `rewards` there is one that costs nothing.
    """
    if settings.freeze_projectors:
        policy.model.freeze_projectors()
    for module in policy.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0

    def prepare(clip: Clip) -> Tensors:
        return policy.processor.prepare_clip(clip.frames, clip.audio, clip.sample_rate)

    if rows is None:
        rows = [
            {"prompt": policy.processor.build_messages(), "clip": f"{name}/{clip_id}"}
            for name, reader in readers.items()
            for clip_id in reader.clip_ids
        ]
    rewards = rewards or [("reward", _reward, 1.0)]
    steps = grpo.total_steps(settings, len(rows))
    per_pass = (WAYS[way].prompts_per_pass or settings.prompts_per_step) * settings.num_generations
    machine = load_settings().machine
    passes = machine.grpo.model_copy(update={"rows_per_pass": per_pass})
    machine = machine.model_copy(update={"accelerate": None, "processes": 1, "grpo": passes})
    config = grpo.grpo_config(settings, steps, rewards, policy, output, 0, runtime, machine)
    config.steps_per_generation, config.generation_batch_size = 1, per_pass  # each pass writes its own
    end = policy.model.generation_config.eos_token_id
    config.generation_kwargs = {
        "suppress_tokens": [*policy.model.placeholder_ids, *([] if ending else [end])]
    }
    trainer = WAYS[way](
        model=policy.model,
        args=config,
        reward_funcs=[CheckedReward(name, reward) for name, reward, _ in rewards],
        train_dataset=grpo.order_rows(rows, steps, settings.prompts_per_step, 0),
        processing_class=policy.processor.tokenizer,
        peft_config=grpo.lora_config(policy.model, settings.lora) if settings.lora.enabled else None,
        clip_features=ClipFeatures(
            policy_encoder(policy, resolve_dtype(runtime.dtype, policy.device))
            if way in ("erv", "before")
            else prepare,
            readers,
        ),
        question=policy.processor.question_inputs(),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.create_optimizer()
    backward = trainer.accelerator.backward
    trainer.accelerator.backward = lambda *a, **k: trainer.watch.around("backward", backward)(*a, **k)
    models = [trainer.model] + ([trainer.ref_model] if trainer.ref_model is not None else [])
    for inner in map(trainer._inner, models):
        _time_towers(trainer, inner)
    return trainer


def _time_towers(trainer: MeasuredTrainer, inner: Any) -> None:
    encode = inner.encode_clips
    inner.encode_clips = lambda *a, **k: trainer.watch.around("encode", encode)(*a, **k)


def step(
    trainer: MeasuredTrainer,
    prompts: Sequence[dict[str, Any]],
    replay: Sequence[list[int]] | None = None,
    update: bool = True,
    watch: Stopwatch | None = None,
) -> tuple[Stopwatch, Seen]:
    """Runs generation, scoring, backward pass and update.

    Args:
        trainer: from `make_trainer`.
        prompts: rows of distinct clips.
        replay: completions to train on instead of those that the step writes, in the order of the rows.
        update: whether to update the weights.
        watch: what to time the parts with.
    """
    trainer.watch, trainer.seen = watch or Stopwatch(str(trainer.accelerator.device)), Seen()
    trainer.replay = None if replay is None else list(replay)
    size = trainer.prompts_per_pass or len(prompts)
    with trainer.watch("other"):
        trainer.current_gradient_accumulation_steps = len(prompts) // size
        for start in range(0, len(prompts), size):
            rows = [row for row in prompts[start : start + size] for _ in range(trainer.num_generations)]
            trainer._buffered_inputs = None
            loss = trainer.training_step(trainer.model, rows, None)
            trainer.seen.loss += float(loss)
        trainer.seen.gradients = {
            name: value.grad.detach().float().cpu().clone()
            for name, value in trainer.model.named_parameters()
            if value.grad is not None and value.numel() <= SMALL
        }
        if update:
            with trainer.watch("update"):
                trainer.optimizer.step()
        trainer.model.zero_grad()
    return trainer.watch, trainer.seen


def agree(first: Seen, second: Seen) -> dict[str, float]:
    """How far apart two steps on the same completions are.

    Returns:
        Largest difference of a log-probability of policy and reference, of the loss, and of a gradient of the
        small weights as a share of the largest of these.

    Raises:
        ValueError: they had different completions, trained different weights, or trained none.
    """
    if first.completions != second.completions or first.gradients.keys() != second.gradients.keys():
        raise ValueError("the two steps had different completions or trained different weights")
    largest = max((float(value.abs().max()) for value in first.gradients.values()), default=0.0)
    if not largest:
        raise ValueError("the step had no gradient, so there is nothing to compare")
    gaps: dict[str, float] = {}
    for which, scored in first.log_probs.items():
        other = second.log_probs[which]
        gaps[which] = max(float((values - other[ids]).abs().max()) for ids, values in scored.items())
    gaps["loss"] = abs(first.loss - second.loss)
    gaps["gradient"] = max(
        float((value - second.gradients[name]).abs().max()) / largest
        for name, value in first.gradients.items()
    )
    return gaps
