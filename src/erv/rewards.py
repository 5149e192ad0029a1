"""Rewards of a completion: format, accuracy and agreement of the explanation with the truth.

Pure functions in TRL's convention: `completions` are strings or message lists, columns of the data set arrive
as lists, and `None` in the result means "not scorable". Each reads a completion in one of two ways:

* `official`: exactly what the method's released code computes (its vectors are in `tests/golden/`), quirks
  included. Where that code crashes, a value is defined here: a batch without any sentence scores 0.0, and a
  truth outside the eleven MAFW names is `None` for its own row instead of a `KeyError` for the whole batch.
* `strict`: the same ideas without the loopholes; each function says what it mends.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any, Protocol

from erv.answers import (
    ANSWER,
    OFFICIAL_ANSWER,
    OFFICIAL_NAMES,
    bare,
    mafw_name,
    normalize,
    official_normalize,
    official_truth,
)
from erv.errors import SettingsError
from erv.settings import BUILT_IN_REWARDS
from erv.verifier.sentences import Semantics, split_sentences

if TYPE_CHECKING:
    import numpy as np

    from erv.settings import RewardSettings

Completion = str | list[dict[str, Any]]
Reward = Callable[..., list[float | None]]

DEFAULT_THRESHOLD = 0.1
DEFAULT_MIN_SENTENCES = 3
MAX_LABELS_PER_SENTENCE = 2
NEUTRAL = "neutral"

_OFFICIAL_FORMAT = re.compile(r"<think>.*?</think>\s*<answer>.*?</answer>", re.DOTALL)
_THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL)
_NO_TAG = r"((?:(?!</?(?:think|answer)\b).)*)"
_STRICT_FORMAT = re.compile(
    rf"\s*<think>{_NO_TAG}</think>\s*<answer>{_NO_TAG}</answer>\s*", re.DOTALL | re.IGNORECASE
)


class Verifier(Protocol):
    """Anything that names the emotions of sentences; `thresholds` is optional (0.1 for each without it)."""

    @property
    def labels(self) -> Sequence[str]:
        """A name per column."""

    def predict(self, sentences: list[str]) -> Any:
        """Independent probabilities, float tensor [len(sentences), len(labels)]."""


def format_reward(
    completions: Sequence[Completion], *, semantics: Semantics = "strict", **columns: Any
) -> list[float]:
    """1.0 for a completion that is one think block followed by one answer block, else 0.0.

    Strict mends of the official rule: further tags inside the blocks (a second answer, a nested block) and
    blank blocks fail; white space around the whole, such as a trailing newline, passes.

    Args:
        completions: n completions.
        semantics: `strict` or `official`.
        **columns: other columns of the batch; not read.

    Returns:
        n rewards.
    """
    texts = [completion_text(completion) for completion in completions]
    if semantics == "official":
        return [1.0 if _OFFICIAL_FORMAT.fullmatch(text) else 0.0 for text in texts]
    return [1.0 if _is_well_formed(text) else 0.0 for text in texts]


def accuracy_reward(
    completions: Sequence[Completion],
    solution: Sequence[str],
    dataset: Sequence[str | None],
    *,
    semantics: Semantics = "strict",
    **columns: Any,
) -> list[float | None]:
    """1.0 for the right answer, else 0.0.

    Strict mends of the official rule: both sides are read through the label space, as whole words; an answer
    may stand on a line of its own; text without an answer block is no answer; answers that name more than one
    label, or several answer blocks that differ, are wrong.

    Args:
        completions: n completions.
        solution: n truths, bare or as `<answer>truth</answer>`.
        dataset: n names of label spaces (`mafw`, `dfew`, ...); None compares the words as they are.
        semantics: `strict` or `official`.
        **columns: other columns of the batch; not read.

    Returns:
        n rewards; strict: None where the truth is outside its label space.
    """
    score = _official_accuracy if semantics == "official" else _strict_accuracy
    return [
        score(completion_text(completion), truth, name)
        for completion, truth, name in zip(completions, solution, dataset, strict=True)
    ]


def explanation_reward(
    verifier: Verifier, *, semantics: Semantics = "strict", min_sentences: int = DEFAULT_MIN_SENTENCES
) -> Reward:
    """The reward of the Emotional Rationale Verifier: the share of sentences that speak of the true emotion.

    A sentence has the labels above their thresholds, the most probable one if there is none, the two most
    probable ones if there are more. For a neutral truth the reward is matching / all sentences, otherwise
    matching / sentences that are not merely neutral (0.0 if there are none). No sentence: 0.0.

    Strict mends of the official rule: the truth is read in its own data set's label space; a repeated
    sentence counts once; sentences are split as `split_sentences(..., semantics="strict")` does; `neutral`
    does not stand beside an emotion: a sentence is neutral where that is the most probable of its labels,
    else it is not; a completion with several think blocks is read as a whole; fewer than `min_sentences`
    sentences that count (the denominator above) earn in proportion, so that one closing phrase is not worth
    as much as an explanation.

    Args:
        verifier: see `Verifier`; its thresholds hold under both semantics, so that the official 0.1 is the
            value of a verifier that declares none.
        semantics: `strict` or `official`.
        min_sentences: different sentences that an explanation needs for the full reward; `strict` only.

    Returns:
        A callable (completions, solution, **columns) -> rewards. It calls the verifier once per batch, and
        not at all for a batch without sentences. A truth that has no column in `verifier.labels` gives None.
    """
    labels = list(verifier.labels)
    thresholds = _thresholds(verifier, len(labels))
    label_sets = _official_label_set if semantics == "official" else _strict_label_set
    needed = 1 if semantics == "official" else min_sentences

    def explanation(
        completions: Sequence[Completion], solution: Sequence[str], **columns: Any
    ) -> list[float | None]:
        datasets = columns.get("dataset") or [None] * len(solution)
        groups = [_explanation_sentences(completion_text(c), semantics) for c in completions]
        flat = [sentence for group in groups for sentence in group]
        probabilities = _as_array(verifier.predict(flat)) if flat else None
        rewards: list[float | None] = []
        start = 0
        for group, truth, dataset in zip(groups, solution, datasets, strict=True):
            target = _explanation_target(truth, dataset, semantics)
            if target is None or target not in labels:
                rewards.append(None)
            elif probabilities is None or not group:
                rewards.append(0.0)
            else:
                rows = probabilities[start : start + len(group)]
                rewards.append(_share([label_sets(row, thresholds, labels) for row in rows], target, needed))
            start += len(group)
        return rewards

    explanation.__name__ = "explanation_reward"
    return explanation


def build_rewards(
    settings: Sequence[RewardSettings],
    verifier: Verifier | None,
    semantics: Semantics,
    *,
    min_sentences: int = DEFAULT_MIN_SENTENCES,
) -> list[tuple[str, Reward, float]]:
    """Turns the `rewards` of a variant into callables.

    Args:
        settings: names and weights; a name is built in (`format`, `accuracy`, `explanation`) or the dotted
            path of a callable (`package.module:callable` or `package.module.callable`) that is called with
            `completions` and the data set's columns as keywords.
        verifier: needed for `explanation` only.
        semantics: how the built-in rewards read a completion.
        min_sentences: see `explanation_reward`.

    Returns:
        (name, callable, weight) in the order of `settings`.

    Raises:
        SettingsError: a name that can't be resolved, or `explanation` without a verifier.
    """
    rewards: list[tuple[str, Reward, float]] = []
    for item in settings:
        rewards.append((item.name, _build(item.name, verifier, semantics, min_sentences), item.weight))
    return rewards


def completion_text(completion: Completion) -> str:
    """The text of a completion in either of TRL's forms: a string, or messages of which the first counts."""
    if isinstance(completion, str):
        return completion
    content = completion[0]["content"]
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def sentence_labels(probabilities: Any, labels: Sequence[str], thresholds: Any) -> list[list[str]]:
    """The labels of each sentence as the strict explanation reward reads them, in the order of probability.

    Args:
        probabilities: float [n, len(labels)].
        labels: a name per column.
        thresholds: float [len(labels)].
    """
    limits = _as_array(thresholds)
    return [_strict_label_set(row, limits, list(labels)) for row in _as_array(probabilities)]


def _build(name: str, verifier: Verifier | None, semantics: Semantics, min_sentences: int) -> Reward:
    if name == "format":
        return _bound(format_reward, semantics)
    if name == "accuracy":
        return _bound(accuracy_reward, semantics)
    if name == "explanation":
        if verifier is None:
            raise SettingsError("reward 'explanation' needs a verifier: give one with --verifier")
        return explanation_reward(verifier, semantics=semantics, min_sentences=min_sentences)
    return _import_reward(name)


def _bound(reward: Callable[..., Any], semantics: Semantics) -> Reward:
    """A reward with its semantics chosen, still named after the function: TRL logs `__name__`."""
    return update_wrapper(partial(reward, semantics=semantics), reward)


def _import_reward(path: str) -> Reward:
    module_name, _, attribute = path.replace(":", ".").rpartition(".")
    if not module_name:
        raise SettingsError(
            f"reward {path!r}: expected one of {', '.join(BUILT_IN_REWARDS)} or the dotted path of a callable"
        )
    try:
        reward = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"reward {path!r}: can't be imported: {error}") from error
    if not callable(reward):
        raise SettingsError(f"reward {path!r}: expected a callable, found {type(reward).__name__}")
    return reward


# --- how a completion and a truth are read --------------------------------------------


def _is_well_formed(text: str) -> bool:
    match = _STRICT_FORMAT.fullmatch(text)
    return match is not None and all(block.strip() for block in match.groups())


def _official_accuracy(text: str, truth: str, dataset: str | None) -> float:
    match = OFFICIAL_ANSWER.search(text)
    answer = match.group(1).strip() if match else text.strip()
    return 1.0 if official_normalize(answer, dataset) == official_truth(truth) else 0.0


def _strict_accuracy(text: str, truth: str, dataset: str | None) -> float | None:
    expected = normalize(bare(truth), dataset)
    if expected is None:
        return None
    answers = {normalize(block, dataset) for block in ANSWER.findall(text)}
    return 1.0 if answers == {expected} else 0.0


def _explanation_target(truth: str, dataset: str | None, semantics: Semantics) -> str | None:
    """The MAFW name of a truth, or None when it is outside the space."""
    if semantics == "official":
        # Whatever the data set: the official code applies the MAFW rules to all.
        name = official_normalize(official_truth(truth), "mafw")
        return name if name in OFFICIAL_NAMES else None
    return mafw_name(bare(truth), dataset)


def _explanation_sentences(text: str, semantics: Semantics) -> list[str]:
    if semantics == "official":
        match = _THINK.search(text)
        return split_sentences(match.group(1)) if match else []
    unique: dict[str, str] = {}
    for block in _THINK.findall(text):
        for sentence in split_sentences(block, semantics="strict"):
            unique.setdefault(" ".join(re.findall(r"\w+", sentence.casefold())), sentence)
    return list(unique.values())


# --- labels of a sentence -------------------------------------------------------------


def _thresholds(verifier: Verifier, count: int) -> np.ndarray:
    import numpy as np

    declared = getattr(verifier, "thresholds", None)
    if declared is None:
        return np.full(count, DEFAULT_THRESHOLD, dtype=np.float32)
    if isinstance(declared, dict):
        declared = [declared[label] for label in verifier.labels]
    limits = _as_array(declared)
    return np.broadcast_to(limits, (count,)) if limits.ndim == 0 else limits


def _as_array(values: Any) -> np.ndarray:
    """float32 array of a tensor on any device, an array or a list: the precision in which thresholds hold."""
    import numpy as np

    if hasattr(values, "detach"):
        values = values.detach().float().cpu().numpy()
    return np.asarray(values, dtype=np.float32)


def _official_label_set(row: np.ndarray, thresholds: np.ndarray, labels: list[str]) -> list[str]:
    above = (row > thresholds).nonzero()[0].tolist()
    if not above:
        above = [int(row.argmax())]
    elif len(above) > MAX_LABELS_PER_SENTENCE:
        above = (-row).argsort(kind="stable")[:MAX_LABELS_PER_SENTENCE].tolist()
    return [labels[index] for index in above]


def _strict_label_set(row: np.ndarray, thresholds: np.ndarray, labels: list[str]) -> list[str]:
    order = (-row).argsort(kind="stable")
    chosen = [labels[index] for index in order if row[index] > thresholds[index]] or [labels[order[0]]]
    if chosen[0] == NEUTRAL:
        return [NEUTRAL]
    return [label for label in chosen if label != NEUTRAL][:MAX_LABELS_PER_SENTENCE]


def _share(label_sets: list[list[str]], target: str, needed: int) -> float:
    matching = sum(target in labels for labels in label_sets)
    counted = len(label_sets)
    if target != NEUTRAL:
        counted = sum(labels != [NEUTRAL] for labels in label_sets)
    return matching / max(counted, needed) if counted else 0.0
