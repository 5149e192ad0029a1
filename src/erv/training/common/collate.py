"""Fine-tuning examples and their batches; labels cover only the completions.

A batch is padded on the right, or packed. A packed batch has all its examples in one row without padding;
positions restart at 0 with each example, and there is no attention mask. `transformers` infers from the
positions where examples begin, and stops them from attending to each other: flash attention needs no mask for
this, other kernels use a block-diagonal mask, whose cost grows with the square of the row. This works only if
the model passes positions on unchanged, so `check_packing` verifies it before training begins.
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
# How far logits of packed and unpacked rows may differ through rounding, relative to their norm.
_TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 3e-2}


class Example(TypedDict):
    """A clip and the completion to learn for it."""

    key: str  # `<data set>/<clip id>`
    prompt: list[int]  # token ids up to the completion
    completion: list[int]  # token ids of the target, including the end token


def completion_ids(policy: Policy, text: str) -> list[int]:
    """Token ids of a completion to learn, with the end token."""
    tokenizer = policy.processor.tokenizer
    return [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]


class Collator:
    """Turns examples into inputs of a policy."""

    def __init__(self, policy: Policy, features: ClipFeatures, *, packing: bool = False) -> None:
        """Makes a collator for a policy.

        Args:
            policy: provides the padding token and the inputs of the question.
            features: features of the clips.
            packing: whether to put all examples of a batch into one row.
        """
        self._pad = policy.processor.tokenizer.pad_token_id
        self._question = policy.processor.question_inputs
        self._features = features
        self._packing = packing

    def __call__(self, batch: Sequence[Example]) -> Tensors:
        """A batch: the features of each distinct clip once, the inputs of the question, and

        * padded: `input_ids`, `attention_mask`, `labels` long [rows, length]; `clip_index` long [rows];
        * packed: `input_ids`, `position_ids`, `labels`, `clip_index` long [1, tokens], where `clip_index` is
          the clip of each token.
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
    """Logits of the labelled tokens only, float32 [tokens, vocabulary], and these tokens, long [tokens].

    Args:
        model: a policy's model, with or without adapters, not wrapped for several processes.
        inputs: a batch from a `Collator`, on the model's device.
    """
    inputs = dict(inputs)
    labels = inputs.pop("labels")[:, 1:]
    model = model.get_base_model() if hasattr(model, "peft_config") else model
    hidden = model.base_model(**inputs, use_cache=False).last_hidden_state[:, :-1]
    kept = labels != IGNORED
    return model.get_output_embeddings()(hidden[kept]).float(), labels[kept]


def completion_loss(model: Any, inputs: Tensors) -> tuple[torch.Tensor, int]:
    """Summed cross entropy of the labelled tokens, and their number; see `completion_logits`."""
    logits, tokens = completion_logits(model, inputs)
    return functional.cross_entropy(logits, tokens, reduction="sum"), tokens.numel()


@torch.no_grad()
def check_packing(policy: Policy, examples: Sequence[Example], features: ClipFeatures) -> None:
    """Makes sure that a policy gives the same logits for packed examples as for examples in separate rows.

    Args:
        policy: the policy to train.
        examples: at least one example; the longest and the shortest are compared.
        features: features of their clips.

    Raises:
        TrainingError: the policy refuses packed rows, or its logits on them differ.
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
        raise TrainingError(f"sft: {kind} does not accept packed rows ({error}); {remedy}") from error
    policy.model.train(training)
    difference = float((packed - apart).norm() / apart.norm())
    if difference > _TOLERANCE.get(policy.model.dtype, _TOLERANCE[torch.bfloat16]):
        raise TrainingError(
            f"sft: {kind} can't be trained on packed rows: two examples get different logits in one row than"
            f" in separate rows ({difference:.1%} off), so one attends to the other; {remedy}"
        )
