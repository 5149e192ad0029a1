"""Examples of fine-tuning and the batches they make: labels cover completions alone.

A batch is padded on the right, or packed: then all its examples stand in one row without padding, positions
start again with each, and there is no attention mask. `transformers` reads from the positions where examples
begin and lets none attend to another (flash attention without any mask, the other kernels through a block
diagonal one, whose cost grows with the square of the row). That holds only for a model that passes positions
on as they are, so `check_packing` compares before training begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import torch
from torch.nn import functional

from erv.errors import TrainingError
from erv.policies import Policy
from erv.training.common.clip_features import ClipFeatures

Tensors = dict[str, torch.Tensor]

IGNORED = -100
# Logits of packed and of unpacked rows differ by rounding alone, in relation to their norm.
_TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 3e-2}


class Example(TypedDict):
    """A clip and what shall be said about it."""

    key: str  # `<data set>/<clip id>`
    prompt: list[int]  # token ids up to where the completion begins
    completion: list[int]  # token ids of the target, end token included


def completion_ids(policy: Policy, text: str) -> list[int]:
    """Token ids of a completion to learn, with the end token."""
    tokenizer = policy.processor.tokenizer
    return [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]


class Collator:
    """Callable from examples to the inputs of a policy."""

    def __init__(self, policy: Policy, features: ClipFeatures, *, packing: bool = False) -> None:
        """Makes it.

        Args:
            policy: whose tokens pad, and whose question is asked.
            features: of the clips.
            packing: put all examples of a batch into one row.
        """
        self._pad = policy.processor.tokenizer.pad_token_id
        self._question = policy.processor.question_inputs
        self._features = features
        self._packing = packing

    def __call__(self, batch: Sequence[Example]) -> Tensors:
        """A batch: the features of each distinct clip once, the inputs of the question, and

        * padded: `input_ids`, `attention_mask`, `labels` long [rows, length]; `clip_index` long [rows];
        * packed: `input_ids`, `position_ids`, `labels`, `clip_index` long [1, tokens], the last being the
          clip that each token is about.
        """
        keys = list(dict.fromkeys(item["key"] for item in batch))
        rows = self._packed(batch, keys) if self._packing else self._padded(batch, keys)
        return {**rows, **self._features(keys), **self._question()}

    def _padded(self, batch: Sequence[Example], keys: list[str]) -> Tensors:
        length = max(len(item["prompt"]) + len(item["completion"]) for item in batch)
        ids, mask, labels = [], [], []
        for item in batch:
            prompt, completion = item["prompt"], item["completion"]
            used = len(prompt) + len(completion)
            rest = length - used
            ids.append([*prompt, *completion, *[self._pad] * rest])
            mask.append([1] * used + [0] * rest)
            labels.append([IGNORED] * len(prompt) + completion + [IGNORED] * rest)
        return {
            "input_ids": torch.tensor(ids),
            "attention_mask": torch.tensor(mask),
            "labels": torch.tensor(labels),
            "clip_index": torch.tensor([keys.index(item["key"]) for item in batch]),
        }

    def _packed(self, batch: Sequence[Example], keys: list[str]) -> Tensors:
        ids: list[int] = []
        positions: list[int] = []
        labels: list[int] = []
        clips: list[int] = []
        for item in batch:
            prompt, completion = item["prompt"], item["completion"]
            used = len(prompt) + len(completion)
            ids += [*prompt, *completion]
            positions += range(used)
            labels += [IGNORED] * len(prompt) + completion
            clips += [keys.index(item["key"])] * used
        return {
            "input_ids": torch.tensor([ids]),
            "position_ids": torch.tensor([positions]),
            "labels": torch.tensor([labels]),
            "clip_index": torch.tensor([clips]),
        }


def completion_logits(model: Any, inputs: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the labelled tokens alone, float32 [tokens, vocabulary], and these tokens, long [tokens].

    Args:
        model: a policy's model, with or without adapters, not wrapped for several processes.
        inputs: what a `Collator` made, on the model's device.
    """
    inputs = dict(inputs)
    labels = inputs.pop("labels")[:, 1:]
    model = model.get_base_model() if hasattr(model, "peft_config") else model
    hidden = model.base_model(**inputs, use_cache=False).last_hidden_state[:, :-1]
    kept = labels != IGNORED
    return model.get_output_embeddings()(hidden[kept]).float(), labels[kept]


def completion_loss(model: Any, inputs: Tensors) -> tuple[torch.Tensor, int]:
    """Summed cross entropy of the labelled tokens, and how many there are; see `completion_logits`."""
    logits, tokens = completion_logits(model, inputs)
    return functional.cross_entropy(logits, tokens, reduction="sum"), tokens.numel()


@torch.no_grad()
def check_packing(policy: Policy, examples: Sequence[Example], features: ClipFeatures) -> None:
    """Makes sure that a policy answers in a packed row as it does in rows of its own.

    Args:
        policy: what will be trained.
        examples: at least one; the longest and the shortest are tried.
        features: of their clips.

    Raises:
        TrainingError: it refuses packed rows, or its logits on them differ.
    """
    ordered = sorted(examples, key=lambda item: len(item["prompt"]) + len(item["completion"]))
    pair = [ordered[-1], ordered[0]]
    training = policy.model.training
    policy.model.eval()

    def logits(collate: Callable[[Sequence[Example]], Tensors]) -> torch.Tensor:
        inputs = {name: value.to(policy.device) for name, value in collate(pair).items()}
        return completion_logits(policy.model, inputs)[0]

    kind = type(policy.model).__name__
    remedy = "set sft.packing to false"
    apart = logits(Collator(policy, features))
    try:
        packed = logits(Collator(policy, features, packing=True))
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        raise TrainingError(f"sft: {kind} takes no packed rows ({error}); {remedy}") from error
    policy.model.train(training)
    difference = float((packed - apart).norm() / apart.norm())
    if difference > _TOLERANCE.get(policy.model.dtype, _TOLERANCE[torch.bfloat16]):
        raise TrainingError(
            f"sft: {kind} can't be trained on packed rows: two examples have other logits in one row than in"
            f" rows of their own ({difference:.1%} off), so one reads the other; {remedy}"
        )
