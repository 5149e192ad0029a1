"""The rewards of a variant: from the names and weights of `params.yaml` to callables."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any

from erv.cues import KnownCues
from erv.errors import SettingsError
from erv.rewards.accuracy import accuracy_reward
from erv.rewards.coherence import CoherenceReward
from erv.rewards.explanation import Shaping, explanation_reward
from erv.rewards.format import format_reward
from erv.rewards.grounded import GroundedReward
from erv.sentences import Semantics
from erv.settings import BUILT_IN_REWARDS
from erv.verifier.protocol import Verifier

if TYPE_CHECKING:
    from erv.settings import RewardSettings

Reward = Callable[..., list[float | None]]
READ_SENTENCES = ("explanation", "coherence")  # built-in rewards that read explanations with the verifier


def build_rewards(
    settings: Sequence[RewardSettings],
    verifier: Verifier | None,
    semantics: Semantics,
    *,
    shaping: Shaping | None = None,
    cues: KnownCues | None = None,
) -> list[tuple[str, Reward, float]]:
    """Turns the `rewards` of a variant into callables.

    Args:
        settings: names and weights; a name is built in (`BUILT_IN_REWARDS`) or the dotted path of a callable
            (`package.module:callable` or `package.module.callable`) that is called with `completions` and the
            data set's columns as keywords.
        verifier: needed for `explanation` and `coherence`.
        semantics: how the built-in rewards read a completion.
        shaping: see `explanation_reward`.
        cues: of every clip, by data set and clip id; needed for `grounded`.

    Returns:
        (name, callable, weight) in the order of `settings`.

    Raises:
        SettingsError: a name that can't be resolved, or a reward without the verifier or cues that it needs.
    """
    rewards: list[tuple[str, Reward, float]] = []
    for item in settings:
        rewards.append((item.name, _build(item.name, verifier, semantics, shaping, cues), item.weight))
    return rewards


def _build(
    name: str,
    verifier: Verifier | None,
    semantics: Semantics,
    shaping: Shaping | None,
    cues: KnownCues | None,
) -> Reward:
    if name == "format":
        return _bound(format_reward, semantics)
    if name == "accuracy":
        return _bound(accuracy_reward, semantics)
    if name in READ_SENTENCES:
        if verifier is None:
            raise SettingsError(f"reward {name!r} needs a verifier: give one with --verifier")
        make = explanation_reward if name == "explanation" else CoherenceReward
        return make(verifier, semantics=semantics, shaping=shaping)
    if name == "grounded":
        if cues is None:
            raise SettingsError("reward 'grounded' needs the cues of the clips: give them with --cues")
        return GroundedReward(cues)
    return _import_reward(name)


def _bound(reward: Callable[..., Any], semantics: Semantics) -> Reward:
    """A reward with its semantics bound. It keeps the function's name, because TRL logs `__name__`."""
    return update_wrapper(partial(reward, semantics=semantics), reward)


def _import_reward(path: str) -> Reward:
    module_name, _, attribute = path.replace(":", ".").rpartition(".")
    if not module_name:
        raise SettingsError(
            f"reward {path!r}: expected one of {', '.join(BUILT_IN_REWARDS)} or the dotted path of a callable"
        )
    try:
        reward: Reward = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"reward {path!r}: can't be imported: {error}") from error
    if not callable(reward):
        raise SettingsError(f"reward {path!r}: expected a callable, found {type(reward).__name__}")
    return reward
