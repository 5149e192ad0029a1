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
from typing import TYPE_CHECKING, Any

from erv.rewards.answers import bare, normalize, official_answer, official_normalize
from erv.errors import SettingsError
from erv.rewards.explanation import NO_SHAPING, Shaping, Verifier, explanation_reward, sentence_labels
from erv.settings.policies import BUILT_IN_REWARDS
from erv.prompts import Completion, completion_text, tagged
from erv.sentences import Semantics

if TYPE_CHECKING:
    from erv.settings.policies import RewardSettings

__all__ = [
    "NO_SHAPING",
    "Completion",
    "Reward",
    "Shaping",
    "Verifier",
    "accuracy_reward",
    "build_rewards",
    "completion_text",
    "explanation_reward",
    "format_reward",
    "sentence_labels",
]

Reward = Callable[..., list[float | None]]

_BETWEEN_BLOCKS = re.compile(r"</think>\s*<answer>")
_NO_TAG = r"((?:(?!(?i:</?(?:think|answer)\b)).)*)"
_STRICT_FORMAT = re.compile(rf"\s*<think>{_NO_TAG}</think>\s*<answer>{_NO_TAG}</answer>\s*", re.DOTALL)


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
        return [1.0 if _is_officially_well_formed(text) else 0.0 for text in texts]
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


def build_rewards(
    settings: Sequence[RewardSettings],
    verifier: Verifier | None,
    semantics: Semantics,
    *,
    shaping: Shaping | None = None,
) -> list[tuple[str, Reward, float]]:
    """Turns the `rewards` of a variant into callables.

    Args:
        settings: names and weights; a name is built in (`format`, `accuracy`, `explanation`) or the dotted
            path of a callable (`package.module:callable` or `package.module.callable`) that is called with
            `completions` and the data set's columns as keywords.
        verifier: needed for `explanation` only.
        semantics: how the built-in rewards read a completion.
        shaping: see `explanation_reward`.

    Returns:
        (name, callable, weight) in the order of `settings`.

    Raises:
        SettingsError: a name that can't be resolved, or `explanation` without a verifier.
    """
    rewards: list[tuple[str, Reward, float]] = []
    for item in settings:
        rewards.append((item.name, _build(item.name, verifier, semantics, shaping), item.weight))
    return rewards


def _build(name: str, verifier: Verifier | None, semantics: Semantics, shaping: Shaping | None) -> Reward:
    if name == "format":
        return _bound(format_reward, semantics)
    if name == "accuracy":
        return _bound(accuracy_reward, semantics)
    if name == "explanation":
        if verifier is None:
            raise SettingsError("reward 'explanation' needs a verifier: give one with --verifier")
        return explanation_reward(verifier, semantics=semantics, shaping=shaping)
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


def _is_officially_well_formed(text: str) -> bool:
    """As the released expression finds it in the whole text (think block, white space, answer block)."""
    begin, end = "<think>", "</answer>"
    inner = text[len(begin) : -len(end)]
    return text.startswith(begin) and text.endswith(end) and _BETWEEN_BLOCKS.search(inner) is not None


def _is_well_formed(text: str) -> bool:
    match = _STRICT_FORMAT.fullmatch(text)
    return match is not None and all(block.strip() for block in match.groups())


def _official_accuracy(text: str, truth: str, dataset: str | None) -> float:
    return 1.0 if official_normalize(official_answer(text), dataset) == official_answer(truth) else 0.0


def _strict_accuracy(text: str, truth: str, dataset: str | None) -> float | None:
    expected = normalize(bare(truth), dataset)
    if expected is None:
        return None
    answers = {normalize(block, dataset) for block in tagged(text, "answer")}
    return 1.0 if answers == {expected} else 0.0
