"""The special tokens that a model's configurations name, kept while it trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_NAMES = ("eos_token_id", "bos_token_id", "pad_token_id")


@contextmanager
def special_tokens_kept(model: Any) -> Iterator[None]:
    """After the block, both configurations of the model name the special tokens that they did before.

    `Trainer` aligns them with the tokenizer. Ours agree with it, but an older transformers (5.17) compares
    the configuration of the whole model, which names none where text is one part of it. It writes them there,
    and the end of a sequence a second time into the one for generation; both would be saved with the policy.

    Args:
        model: with `config`, and `generation_config` or none.
    """
    configurations = [model.config, getattr(model, "generation_config", None)]
    before = [
        (one, {name: vars(one)[name] for name in _NAMES if name in vars(one)})
        for one in configurations
        if one is not None
    ]
    yield
    for one, values in before:
        for name in _NAMES:
            vars(one).pop(name, None)
        vars(one).update(values)
