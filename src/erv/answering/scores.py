"""How probable a policy finds each emotion as its answer, after the explanation that it gave.

The score of an emotion is the probability that the policy, after clip, question, its own explanation and the
tag of the answer, writes one of the words for the emotion and closes the tag; divided by the sum over all
emotions of the data set. The words are all that count as this answer (`sad`, `sadness`, `sorrow`), as which
of them a policy writes depends on what it learned from. The closing tag is part of each, so that none begins
another. So it is the policy's own view. What the verifier reads in the sentences is said with each sentence,
and is no view of the clip: it never saw it.

Greedy decoding takes the best token each time. Where two words begin alike, or an emotion has several
probable ones, the answer may therefore not be the emotion with the highest score. What was read of clip and
explanation is taken from the cache of the generation, so that an answer costs about as much as another token
for each 16 words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from erv.policies import Policy
from erv.policies.common.policy import token_positions
from erv.prompts import tagged_spans

_TOGETHER = 16  # words in a batch; each has a copy of the row's cache
_DIGITS = 6
_CLOSING = "</answer>"


@dataclass(frozen=True)
class Written:
    """A row of a batch whose completion has ended.

    Attributes:
        cache: of the whole batch, padded on the left; it has all tokens of the row but the last.
        row: its number in the batch.
        prompt: its token ids, without padding.
        width: of the padded prompts.
        tokens: of its completion.
    """

    cache: DynamicCache
    row: int
    prompt: Sequence[int]
    width: int
    tokens: Sequence[int]


@dataclass(frozen=True)
class _Place:
    """Where an answer is written.

    Attributes:
        count: how many tokens come before it.
        before: the text between them and the answer.
        answer: without white space around it.
        after: the text from its end to that of the closing tag.
        own: the tokens of all three, as they were written; the last one may have more.
    """

    count: int
    before: str
    answer: str
    after: str
    own: tuple[int, ...]


def answer_scores(
    policy: Policy, written: Written, words_for: Callable[[str], Mapping[str, Sequence[str]]]
) -> dict[str, float]:
    """The score of each emotion.

    Args:
        policy: that wrote.
        written: what it wrote.
        words_for: for the answer, by emotion, the words that mean it; see `erv.answering.spelled.spellings`.

    Returns:
        By emotion; they sum to 1, but for rounding. Empty if the completion has no answer, or the policy
        keeps only a window of what it read.
    """
    place = _place(policy, written.tokens)
    if place is None or not all(type(layer) is DynamicLayer for layer in written.cache.layers):
        return {}
    words = words_for(place.answer)
    options = _options(policy, place, words)
    given = [*written.prompt, *written.tokens[: place.count]]
    start = written.width - len(written.prompt)
    read = [
        (layer.keys[written.row, None, :, start : start + len(given) - 1],
         layer.values[written.row, None, :, start : start + len(given) - 1])
        for layer in written.cache.layers
    ]  # fmt: skip
    tokens = [option for option, _ in options]
    with torch.inference_mode():
        logs = torch.cat(
            [
                _logs(policy, read, given, tokens[first : first + _TOGETHER])
                for first in range(0, len(tokens), _TOGETHER)
            ]
        )
    scores = dict.fromkeys(words, 0.0)
    for (_, name), share in zip(options, torch.softmax(logs.double(), dim=0).tolist(), strict=True):
        scores[name] += share
    return {name: round(score, _DIGITS) for name, score in scores.items()}


def _options(
    policy: Policy, place: _Place, words: Mapping[str, Sequence[str]]
) -> list[tuple[tuple[int, ...], str]]:
    """The tokens of each word with its closing tag, each once, and the emotion that it means.

    Those that were written are among them: a policy may write a word in other tokens than the tokenizer
    would.
    """
    tokenizer = policy.processor.tokenizer
    found: dict[tuple[int, ...], str] = {}
    for name, written in words.items():
        for word in written:
            text = f"{place.before}{word}{place.after}"
            found.setdefault(tuple(tokenizer(text, add_special_tokens=False)["input_ids"]), name)
            if word == place.answer:
                found.setdefault(place.own, name)
    return list(found.items())


def _place(policy: Policy, tokens: Sequence[int]) -> _Place | None:
    """Where the answer is written; None if there is none."""
    decode = policy.processor.tokenizer.decode
    begins = policy.begins
    text = f"{begins}{decode(tokens, skip_special_tokens=True)}"
    spans = tagged_spans(text, "answer")
    if not spans or spans[0][0] < len(begins):
        return None
    start, end = spans[0]
    said = text[start:end]
    opened, closed = start - len(begins), end + len(_CLOSING) - len(begins)
    count = last = len(tokens)
    while (known := len(decode(tokens[:count], skip_special_tokens=True))) > opened:
        count -= 1
    while len(decode(tokens[: last - 1], skip_special_tokens=True)) >= closed:
        last -= 1
    inner = said.strip()
    lead = said[: len(said) - len(said.lstrip())] if inner else ""
    trail = said[len(said.rstrip()) :] if inner else ""
    return _Place(
        count,
        text[len(begins) + known : start] + lead,
        inner,
        f"{trail}{_CLOSING}",
        tuple(tokens[count:last]),
    )


def _logs(
    policy: Policy,
    read: Sequence[tuple[torch.Tensor, torch.Tensor]],
    given: Sequence[int],
    options: Sequence[Sequence[int]],
) -> torch.Tensor:
    """The logarithm of the probability of each option after what is given, float32 [options] on the CPU.

    Args:
        policy: that is asked.
        read: keys and values of all that is given but for its last token, [1, heads, tokens, width] a layer.
        given: token ids.
        options: token ids of each.
    """
    longest, count = max(map(len, options)), len(options)
    # What stands behind a shorter option is not seen by its own tokens.
    ids = torch.tensor([[given[-1], *option, *[given[-1]] * (longest - len(option))] for option in options])
    whole = torch.cat([torch.tensor(given[:-1]).expand(count, -1), ids], dim=1).to(policy.device)
    mask = torch.ones_like(whole)
    cache = DynamicCache()
    for number, (keys, values) in enumerate(read):
        cache.update(keys.expand(count, -1, -1, -1), values.expand(count, -1, -1, -1), number)
    inputs: dict[str, Any] = {
        "input_ids": ids.to(policy.device),
        "attention_mask": mask,
        "position_ids": token_positions(policy.model, whole, mask)[..., -ids.shape[1] :],
        "past_key_values": cache,
        "use_cache": True,
    }
    logits = policy.model(**inputs).logits[:, :-1].float()
    logs = torch.log_softmax(logits, dim=-1).gather(2, ids[:, 1:, None].to(policy.device)).squeeze(2).cpu()
    known = torch.tensor([[place < len(option) for place in range(longest)] for option in options])
    return torch.where(known, logs, torch.zeros_like(logs)).sum(dim=1)
