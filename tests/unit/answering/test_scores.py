"""The scores of an answer, read from the cache of a padded batch, are those of a pass over the whole."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from erv.answering.scores import Written, _options, _place, answer_scores
from erv.policies import Policy
from erv.policies.common.generate import encode
from erv.policies.common.policy import token_positions
from erv.prompts import DIRECT_BEGINNING
from erv.sample.tiny_policy import build_tiny_policy
from tests.support.policy_contract import random_clips
from tests.support.sizes import SMALLEST
from tests.support.tiny_qwen_omni import tiny_qwen_omni

TEXTS = [
    "<think>He smiles.</think>\n<answer>happiness</answer>",
    "<answer>fear</answer> <answer>anger</answer>",
]
# Words that begin others, more of them than go together, and emotions with one word.
WORDS = {
    "anger": ("anger", "angry"),
    "happy": ("happy", "happiness", "happiness itself"),
    "fear": ("fear", "fearful", "fear of heights"),
    "disappointment": ("disappointment",),
    **{f"name{number}": (f"name{number}",) for number in range(20)},
}


@pytest.fixture(params=["humanomni", "qwen_omni"])
def policy(request: pytest.FixtureRequest) -> Policy:
    if request.param == "qwen_omni":
        return tiny_qwen_omni(TEXTS * 3, seed=1)
    return Policy(*build_tiny_policy(TEXTS * 3, seed=1, sizes=SMALLEST))


def read_together(policy: Policy, prompts: list[list[int]], said: list[list[int]]) -> DynamicCache:
    """The cache of a generation that wrote `said`, padded on both sides; clip i is shown by row i."""
    tokenizer = policy.processor.tokenizer
    before, after = max(map(len, prompts)), max(map(len, said))
    pad = tokenizer.pad_token_id
    ids = torch.tensor(
        [
            [pad] * (before - len(p)) + p + s + [pad] * (after - len(s))
            for p, s in zip(prompts, said, strict=True)
        ]
    )
    mask = torch.tensor([[0] * (before - len(p)) + [1] * (len(p) + after) for p in prompts])
    cache = DynamicCache(config=policy.model.config)
    features = encode(policy, random_clips(policy, len(prompts)))
    with torch.inference_mode():
        policy.model(
            input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True,
            position_ids=token_positions(policy.model, ids, mask), **features,
            **policy.processor.question_inputs(),
        )  # fmt: skip
    return cache


def whole(policy: Policy, prompt: list[int], row: int, before: str, name: str) -> float:
    """The log-probability of a name and its closing tag, without any cache."""
    tokenizer = policy.processor.tokenizer
    rest = tokenizer(before, add_special_tokens=False)["input_ids"] if before else []
    option = tokenizer(f"{name}</answer>", add_special_tokens=False)["input_ids"]
    features = {
        key: value[row : row + 1] for key, value in encode(policy, random_clips(policy, row + 1)).items()
    }
    ids = torch.tensor([[*prompt, *rest, *option]])
    with torch.inference_mode():
        logits = policy.model(input_ids=ids, **features, **policy.processor.question_inputs()).logits
    steps = torch.log_softmax(logits[0, :-1].float(), -1).gather(1, ids[0, 1:, None])[:, 0]
    return float(steps[-len(option) :].sum())


@pytest.mark.parametrize("capital", [False, True])
def test_scores_are_those_of_the_whole(policy: Policy, capital: bool) -> None:
    tokenizer = policy.processor.tokenizer
    prompts = [policy.processor.prompt_ids("Who?"), policy.processor.prompt_ids("Who is it, and why? " * 4)]
    before = ["<think>He smiles.</think>\n<answer>", "<answer>"]
    answers = ["Happiness", "Fear"] if capital else ["happiness", "fear"]
    said = [
        [*tokenizer(f"{start}{answer}</answer>")["input_ids"], tokenizer.eos_token_id]
        for start, answer in zip(before, answers, strict=True)
    ]
    cache = read_together(policy, prompts, said)
    words = {
        name: tuple(word.capitalize() if capital else word for word in own) for name, own in WORDS.items()
    }
    for row in range(2):
        written = Written(cache, row, prompts[row], max(map(len, prompts)), said[row])
        read: list[str] = []

        def words_for(answer: str, read: list[str] = read) -> dict[str, tuple[str, ...]]:
            read.append(answer)
            return words

        found = answer_scores(policy, written, words_for)
        assert read == [answers[row]]
        assert list(found) == list(WORDS)
        assert list(found.values()) == pytest.approx(
            expected(policy, prompts[row], row, before[row], words), abs=2e-5
        )
        assert sum(found.values()) == pytest.approx(1.0, abs=1e-4)


def expected(
    policy: Policy, prompt: list[int], row: int, before: str, words: dict[str, tuple[str, ...]]
) -> list[float]:
    """The share of each emotion in the probabilities of all words."""
    logs = [[whole(policy, prompt, row, before, word) for word in own] for own in words.values()]
    shares = [torch.tensor(own).double().exp().sum().item() for own in logs]
    return [share / sum(shares) for share in shares]


def test_the_tokens_that_were_written_count(policy: Policy) -> None:
    """A policy may spell a word in other tokens than the tokenizer."""
    tokenizer = policy.processor.tokenizer
    letters = [token for letter in "fear" for token in tokenizer(letter)["input_ids"]]
    closing = tokenizer("</answer>")["input_ids"]
    written = [*letters, *closing]
    assert tokenizer.decode(written) == "fear</answer>"
    assert written != tokenizer("fear</answer>")["input_ids"]
    place = _place(policy, [*tokenizer("<answer>")["input_ids"], *written, tokenizer.eos_token_id])
    assert place is not None
    assert list(place.own) == written
    assert set(_options(policy, place, {"fear": ("fear",)})) == {
        (tuple(written), "fear"),
        (tuple(tokenizer("fear</answer>")["input_ids"]), "fear"),
    }


def test_a_completion_that_begins_with_the_answer(policy: Policy) -> None:
    tokenizer = policy.processor.tokenizer
    policy.begins = DIRECT_BEGINNING
    prompts = [[*policy.processor.prompt_ids(), *tokenizer(DIRECT_BEGINNING)["input_ids"]]]
    said = [tokenizer("fear</answer>")["input_ids"]]
    cache = read_together(policy, prompts, said)
    written = Written(cache, 0, prompts[0], len(prompts[0]), said[0])
    found = answer_scores(policy, written, lambda _: WORDS)
    assert list(found.values()) == pytest.approx(expected(policy, prompts[0], 0, "", WORDS), abs=2e-5)


def test_without_an_answer_there_are_none(policy: Policy) -> None:
    prompts = [policy.processor.prompt_ids()]
    said = [policy.processor.tokenizer("<think>He smiles.</think>\n<answer>happi")["input_ids"]]
    cache = read_together(policy, prompts, said)
    written = Written(cache, 0, prompts[0], len(prompts[0]), said[0])
    assert answer_scores(policy, written, lambda _: WORDS) == {}
