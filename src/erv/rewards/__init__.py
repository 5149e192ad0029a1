"""Rewards of a completion: format, accuracy, and what its explanation says.

Pure functions in TRL's convention: `completions` are strings or message lists, columns of the data set arrive
as lists, and `None` in the result means "not scorable". Each reads a completion in one of two ways:

* `official`: exactly what the method's released code computes (its vectors are in `tests/golden/`), quirks
  included. Where that code crashes, a value is defined here: a batch without any sentence scores 0.0, and a
  truth outside the eleven MAFW names is `None` for its own row instead of a `KeyError` for the whole batch.
* `strict`: the same ideas without the loopholes; each function says what it fixes.
"""

from erv.prompts import Completion, completion_text
from erv.rewards.accuracy import accuracy_reward
from erv.rewards.explanation import NO_SHAPING, Shaping, explanation_reward, uncovered
from erv.rewards.format import format_reward
from erv.rewards.variant import READ_SENTENCES, Reward, build_rewards
from erv.verifier.protocol import Verifier, sentence_labels

__all__ = [
    "NO_SHAPING",
    "READ_SENTENCES",
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
    "uncovered",
]
