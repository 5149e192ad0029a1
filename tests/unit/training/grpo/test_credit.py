"""Credit by sentence: which token wrote which character, what its advantage is, and that the loss gets it."""

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from trl.trainer.utils import nanstd

from erv.prompts import format_completion
from erv.rewards import NO_SHAPING, Shaping, explanation_reward
from erv.rewards.credit import Credit, Credited
from erv.sample.tiny_policy import build_tiny_policy
from erv.training.grpo.checked_reward import CheckedReward
from erv.training.grpo.credit import (
    by_token,
    credit_of_tokens,
    divisors,
    shares,
    stretches,
    token_spans,
)
from tests.support.tiny_grpo import SIZES

AWKWARD = [
    "<think>The voice trembles. The eyes are wide.</think>\n<answer>fear</answer>",
    '<think>"What?!" he says… Dr. Lee nods.  No!\n\nYes。他笑了。</think><answer>fear</answer>',
    "<think>é e\u0301 👩‍👩‍👧 🎭. \u00a0Ünïcödé ﬁ.</think>",
    "no tags. at all",
    "<think></think>",
    "",
    "\ufffd. \ufffd\ufffd! a",
    "  . .. ... <think> . </think>",
    "<think>Sad.</think><think>Sad. Sad, sad.</think>",
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    texts = [format_completion("The voice trembles. The eyes are wide.", "fear")] * 9
    return build_tiny_policy(texts, seed=3, sizes=SIZES)[1].tokenizer


def assert_exact(tokenizer: Any, ids: list[int], text: str) -> None:
    """Each token's characters are those that appear when it is added; together they are the text."""
    spans = token_spans(tokenizer, ids, text)
    assert len(spans) == len(ids)
    reached = 0
    for place, (start, end) in enumerate(spans):
        assert reached - 1 <= start <= reached, (text, spans)
        assert start <= end <= len(text)
        before, after = (tokenizer.decode(ids[: place + more], skip_special_tokens=True) for more in (0, 1))
        if text.startswith(before) and text.startswith(after):  # whole characters before and after it
            assert text[start:end].endswith(after[len(before) :]), (text, place)
        reached = max(reached, end)
    assert reached == len(text)


@pytest.mark.parametrize("text", AWKWARD)
def test_tokens_know_their_characters(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert_exact(tokenizer, ids, tokenizer.decode(ids, skip_special_tokens=True))


@pytest.mark.parametrize("text", AWKWARD)
def test_pieces_that_the_tokenizer_would_not_choose_know_theirs_too(tokenizer: Any, text: str) -> None:
    """A policy may write a word letter by letter, and a letter byte by byte."""
    ids = [token for letter in text for token in tokenizer(letter, add_special_tokens=False)["input_ids"]]
    assert_exact(tokenizer, ids, tokenizer.decode(ids, skip_special_tokens=True))


def test_random_tokens_know_their_characters(tokenizer: Any) -> None:
    """Broken characters, special tokens and all."""
    numbers = random.Random(0)
    for _ in range(300):
        ids = [numbers.randrange(len(tokenizer)) for _ in range(numbers.randint(0, 12))]
        text = tokenizer.decode(ids, skip_special_tokens=True)
        spans = token_spans(tokenizer, ids, text)
        assert len(spans) == len(ids)
        covered = {place for start, end in spans for place in range(start, end)}
        assert covered == set(range(len(text))), (ids, text, spans)
        assert spans == sorted(spans)


def test_an_end_token_writes_nothing(tokenizer: Any) -> None:
    ids = tokenizer("The voice.", add_special_tokens=False)["input_ids"]
    spans = token_spans(tokenizer, [*ids, tokenizer.eos_token_id], "The voice.")
    assert spans[-1] == (10, 10)
    assert spans[-2][1] == 10


def test_a_token_on_a_border_belongs_where_most_of_it_is() -> None:
    credits = [Credit(2, 5, 1.0), Credit(6, 9, 0.0)]
    spans = [(0, 2), (1, 3), (4, 7), (5, 6), (5, 8), (8, 12), (9, 12), (9, 9)]
    assert credit_of_tokens(spans, credits) == [-1, 0, 0, -1, 1, 1, -1, -1]


def test_shares_move_return_within_a_completion_and_add_none() -> None:
    spans = [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10)]
    credits = [Credit(0, 2, 1.0), Credit(2, 8, 0.0)]
    assert shares(spans, [(2.0, credits)]).tolist() == [1.5, -0.5, -0.5, -0.5, 0.0]
    assert shares(spans, [(1.0, [Credit(0, 4, 0.7)])]).tolist() == [0.0] * 5  # nothing to compare with
    assert shares(spans, [(1.0, [])]).tolist() == [0.0] * 5
    assert shares([], [(1.0, [])]).tolist() == []
    both = shares(spans, [(1.0, credits), (-1.0, [Credit(0, 2, 0.0), Credit(8, 10, 1.0)])])
    assert both.tolist() == [1.25, -0.25, -0.25, -0.25, -0.5]


def advantages_of(
    totals: list[float], moved: list[list[float]], scale: str, group: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """TRL's advantages of completions, and ours of their tokens."""
    values, parts = torch.tensor(totals), torch.tensor(moved)
    size = len(totals) if scale == "batch" else group
    mean = values.view(-1, group).nanmean(1).repeat_interleave(group)
    deviation = nanstd(values.view(-1, size), dim=1).repeat_interleave(size)
    plain = values - mean if scale == "none" else (values - mean) / (deviation + 1e-4)
    plain = plain.nan_to_num(0.0)
    return plain, by_token(plain, parts, *divisors(values, parts.square().mean(1), scale, group))


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_without_verdicts_advantages_are_those_of_completions(scale: str) -> None:
    plain, tokens = advantages_of([0.0, 1.0, 2.0, 2.5], [[0.0] * 3] * 4, scale, 2)
    torch.testing.assert_close(tokens, plain.unsqueeze(1).expand(4, 3))


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_the_mean_stays_and_so_does_the_deviation(scale: str) -> None:
    moved = [[0.5, -0.5], [0.3, -0.3], [0.0, 0.0], [1.0, -1.0]]
    plain, tokens = advantages_of([0.0, 1.0, 2.0, 2.5], moved, scale, 4)
    assert tokens.mean().item() == pytest.approx(0.0, abs=1e-6)
    ratio = tokens.mean(1) / plain  # each completion keeps its sign and its place in the group
    torch.testing.assert_close(ratio, ratio[:1].expand(4))
    if scale == "none":
        assert ratio[0].item() == pytest.approx(1.0)
    else:
        assert 0.0 < ratio[0].item() < 1.0
        whole = tokens.square().mean(1).sum() / 3  # sample variance over the completions
        assert whole.sqrt().item() == pytest.approx(1.0, abs=1e-3)


def test_a_group_that_earns_the_same_learns_from_its_sentences() -> None:
    plain, tokens = advantages_of([1.0] * 4, [[0.5, -0.5]] * 4, "group", 4)
    assert plain.tolist() == [0.0] * 4
    assert tokens[:, 0].min() > 0.5
    assert tokens[:, 1].max() < -0.5
    assert tokens.abs().max() < 2.0


def test_what_cannot_be_scored_moves_nothing() -> None:
    nan = float("nan")
    moved = [[0.0, 0.0], [0.5, -0.5], [0.0, 0.0], [0.0, 0.0]]
    _, tokens = advantages_of([nan, 1.0, nan, nan], moved, "group", 2)
    assert tokens[[0, 2, 3]].abs().max() == 0.0
    assert bool(tokens.isfinite().all())


def test_stretches_say_where_advantages_differ() -> None:
    spans = [(0, 7), (7, 10), (10, 14), (14, 18), (18, 20)]
    moved, advantages = [0.0, 0.5, 0.5, -0.5, 0.0], [0.1, 0.6, 0.6, -0.4, 0.1]
    assert stretches(spans, moved, advantages) == [(7, 14, 0.6), (14, 18, -0.4)]


# --- what the explanation reward says of sentences ---


class Words:
    """Labels by the first word of a sentence."""

    labels = ("happiness", "sadness", "neutral")

    def predict(self, sentences: list[str]) -> torch.Tensor:
        """One row per sentence."""
        rows = {"Joy": (0.9, 0.0, 0.0), "Tears": (0.0, 0.9, 0.0), "Room": (0.0, 0.0, 0.9)}
        return torch.tensor([rows[sentence.split()[0].strip(".,!")] for sentence in sentences])


def credited(text: str, shaping: Shaping = NO_SHAPING, semantics: Any = "strict") -> Credited:
    reward = explanation_reward(Words(), semantics=semantics, shaping=shaping)
    (found,) = reward.credited([text], ["happiness"], dataset=["mafw"])
    assert [found.reward] == reward([text], ["happiness"], dataset=["mafw"])
    return found


@pytest.mark.parametrize("semantics", ["strict", "official"])
def test_the_credits_of_an_explanation_are_its_sentences(semantics: Any) -> None:
    text = "<think>  Joy one.  Tears! \n Joy two. </think><answer>happiness</answer>"
    found = credited(text, semantics=semantics)
    assert [(text[c.start : c.end], c.value) for c in found.credits] == [
        ("Joy one.", 1.0),
        ("Tears!", 0.0),
        ("Joy two.", 1.0),
    ]
    assert found.reward == pytest.approx(2 / 3)


def test_what_does_not_count_has_no_credit_and_shaping_scales_the_rest() -> None:
    text = "<think>Room one. Joy one. Joy one. Tears.</think><think>Joy two.</think>"
    found = credited(text, replace(NO_SHAPING, min_sentences=4))
    assert [text[c.start : c.end] for c in found.credits] == ["Joy one.", "Tears.", "Joy two."]
    assert sum(c.value for c in found.credits) / 3 == pytest.approx(found.reward)
    assert found.reward == pytest.approx(2 / 4)
    assert credited("no explanation") == Credited(0.0)
    for earned in (0.0, -0.5):
        repetitive = credited(text, replace(NO_SHAPING, max_repeats=0, repeats_earn=earned))
        assert repetitive.reward == earned
        assert [c.value for c in repetitive.credits] == [earned] * 3


def test_a_reward_is_read_once_for_value_and_credits() -> None:
    verifier = Words()
    calls: list[int] = []
    plain = verifier.predict
    verifier.predict = lambda sentences: calls.append(1) or plain(sentences)  # type: ignore
    reward = CheckedReward("explanation", explanation_reward(verifier, shaping=NO_SHAPING), credited=True)
    columns = {"solution": ["happiness"], "dataset": ["mafw"]}
    assert reward(completions=["<think>Joy.</think>"], **columns) == [1.0]
    assert (reward.credits, len(calls)) == ([(Credit(7, 11, 1.0),)], 1)
    silent = CheckedReward("mine", lambda **columns: [0.5], credited=True)  # it judges no sentences
    assert (silent(completions=["a"]), silent.credits) == ([0.5], None)
    off = CheckedReward("explanation", explanation_reward(verifier, shaping=NO_SHAPING))
    off(completions=["<think>Joy.</think>"], **columns)
    assert off.credits is None
