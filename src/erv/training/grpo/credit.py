"""Credit by sentence: an advantage for each token instead of one for the whole completion.

GRPO gives every token of a completion the same advantage, so a sentence that contradicts the truth is
reinforced along with a right answer. Rewards that read sentences know better (`erv.rewards.credit`). Their
verdicts move return within a completion, and change neither its mean nor what the group as a whole gets:

    r[i, t] = R[i] + sum over rewards k of  w[k] (u[k, i, s(t)] - mean of u[k, i] over its tokens)

`R[i]` is the weighted sum of rewards, `u` what the sentence of token `t` earns; tokens in no judged sentence
(tags, the answer, scenery) keep `R[i]`. As the mean is over tokens, no sentence gains weight by being longer.
So the mean of `r` over the tokens of a completion is `R[i]`, and with each completion weighing the same, its
variance over the group is that between the completions plus the mean of that within them (law of total
variance). The advantage is

    A[i, t] = (r[i, t] - mean of R) / (sqrt(Var(R) + n / (n - 1) mean of Var(r[i]) ) + 1e-4)

over the n completions of the group, with the sample variance that TRL takes for `Var(R)`. Where no sentence
differs from another this is the plain advantage. Otherwise it has the same mean and deviation, 0 and 1, and a
group whose completions all earn the same still learns from its sentences. With `scale_rewards: none` nothing
is divided, and the mean over the tokens of each completion is exactly the plain advantage.

A verdict reaches only the tokens of its sentence, not those before it that led there: less noise, for some
bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from trl.trainer.utils import nanstd

from erv.rewards.credit import Credit
from erv.training.grpo.generation import Stretch

Span = tuple[int, int]

_EPSILON = 1e-4  # TRL's, in the denominator of the advantage


def token_spans(tokenizer: Any, ids: Sequence[int], text: str) -> list[Span]:
    """Which characters of a completion each of its tokens wrote.

    Where the tokenizer splits the text as the policy did, these are its offsets. Otherwise, since a policy
    may sample any pieces, the text of every beginning of the completion shows them.

    Args:
        tokenizer: a fast tokenizer.
        ids: the sampled tokens, special ones included.
        text: these tokens decoded without special tokens.

    Returns:
        (first character, the one after the last) per token. A character that several tokens share belongs to
        each of them; a special token that leaves no text has an empty span.
    """
    added = tokenizer.added_tokens_decoder
    special = set(tokenizer.all_special_ids) | {token for token, kind in added.items() if kind.special}
    written = [token for token in ids if token not in special]
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    if encoded["input_ids"] == written:
        spans = iter([(int(start), int(end)) for start, end in encoded["offset_mapping"]])
    else:
        spans = iter(_spans_by_decoding(tokenizer, written, text))
    found: list[Span] = []
    for token in ids:
        place = found[-1][1] if found else 0
        found.append((place, place) if token in special else next(spans))
    return found


def _spans_by_decoding(tokenizer: Any, ids: Sequence[int], text: str) -> list[Span]:
    """Spans from how far the text of each beginning agrees with the whole."""
    spans: list[Span] = []
    start = 0
    for count in range(1, len(ids) + 1):
        begun = tokenizer.decode(ids[:count])
        agreed = max(start, _common(begun, text))
        end = min(len(text), agreed + (len(begun) > agreed))  # a beginning may end within a character
        spans.append((min(start, max(0, end - 1)), end))
        start = agreed
    return spans


def _common(first: str, second: str) -> int:
    """How many characters two texts begin with in common."""
    size = min(len(first), len(second))
    if first[:size] == second[:size]:
        return size
    return next(place for place in range(size) if first[place] != second[place])


def credit_of_tokens(spans: Sequence[Span], credits: Sequence[Credit]) -> list[int]:
    """The credit of each token, by its number; -1 for a token outside all of them.

    A token on a border belongs to the stretch with most of its characters, the earlier one of two.

    Args:
        spans: of the tokens, ascending.
        credits: stretches that don't overlap, in order of place.
    """
    found, first = [], 0
    for start, end in spans:
        while first < len(credits) and credits[first].end <= start:
            first += 1
        best, most = -1, 0
        for number in range(first, len(credits)):
            if credits[number].start >= end:
                break
            shared = min(end, credits[number].end) - max(start, credits[number].start)
            if shared > most:
                best, most = number, shared
        found.append(best)
    return found


def shares(spans: Sequence[Span], judged: Sequence[tuple[float, Sequence[Credit]]]) -> torch.Tensor:
    """What the verdicts move to and from each token of a completion; their sum is 0.

    Args:
        spans: of its T tokens.
        judged: the weight and the credits of each reward.

    Returns:
        float32 [T].
    """
    moved = torch.zeros(len(spans), dtype=torch.float64)
    for weight, credits in judged:
        place = torch.tensor(credit_of_tokens(spans, credits), dtype=torch.long)
        within = place >= 0
        if bool(within.any()):
            values = torch.tensor([credit.value for credit in credits], dtype=torch.float64)[place[within]]
            moved[within] += weight * (values - values.mean())
    return moved.float()


@dataclass(frozen=True)
class Verdicts:
    """What the rewards of a generation say of the sentences of B completions, one process's share of N.

    Attributes:
        spans: of the tokens of each of the B completions.
        moved: `shares` of each of the B completions.
        totals: R of all N completions, NaN for those that can't be scored.
        within: [N], the variance of `moved` within each of them.
    """

    spans: Sequence[Sequence[Span]]
    moved: Sequence[torch.Tensor]
    totals: torch.Tensor
    within: torch.Tensor


def divisors(
    totals: torch.Tensor, within: torch.Tensor, scale: str, group: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """What TRL divides the advantages of completions by, and what those of tokens are divided by, [N] each.

    Args:
        totals: [N], see `Verdicts`.
        within: [N], see `Verdicts`.
        scale: `group`, `batch` or `none`, as `grpo.scale_rewards`.
        group: completions per prompt.
    """
    if scale == "none":
        return torch.ones_like(totals), torch.ones_like(totals)
    size = group if scale == "group" else len(totals)
    rows = totals.view(-1, size)
    scored = ~rows.isnan()
    plain = nanstd(rows, dim=1).nan_to_num(0.0)
    inner = (within.view(-1, size) * scored).sum(1) / (scored.sum(1) - 1).clamp(min=1)
    whole = (plain**2 + inner).sqrt()
    return (plain + _EPSILON).repeat_interleave(size), (whole + _EPSILON).repeat_interleave(size)


def by_token(
    advantages: torch.Tensor, moved: torch.Tensor, divided: torch.Tensor, divides: torch.Tensor
) -> torch.Tensor:
    """Advantages [B, T] from those of completions.

    Args:
        advantages: [B], TRL's.
        moved: [B, T], from `shares`; 0 beyond the end of a completion.
        divided: [B], what `advantages` were divided by.
        divides: [B], what those of tokens are divided by.
    """
    return ((advantages * divided).unsqueeze(1) + moved) / divides.unsqueeze(1)


def stretches(spans: Sequence[Span], moved: Sequence[float], advantages: Sequence[float]) -> list[Stretch]:
    """Where the tokens of a completion have another advantage than its mean, and which, in order of place.

    Args:
        spans: of its T tokens.
        moved: T values of `shares`.
        advantages: T values of `by_token`.
    """
    found: list[Stretch] = []
    before = 0.0
    for (start, end), share, advantage in zip(spans, moved, advantages, strict=True):
        if share != 0.0 and end > start:
            if found and share == before and start <= found[-1][1] + 1:
                found[-1] = (found[-1][0], end, advantage)
            else:
                found.append((start, end, advantage))
        before = share
    return found
