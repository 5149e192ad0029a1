"""The explanation reward: the share of an explanation's sentences that express the true emotion.

`explanation_reward` returns the values that GRPO optimises. `assess` returns the reading behind them: what
the verifier reads in each sentence, what counts and why. `erv verify` prints it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from erv.labels import NEUTRAL
from erv.prompts import Completion, completion_text, tagged_spans
from erv.rewards.answers import OFFICIAL_NAMES, bare, official_answer, official_normalize, verifier_name
from erv.rewards.credit import Credit, Credited
from erv.rewards.evidence import evidence_in, evidence_of, lists_fit
from erv.sentences import Semantics, count_words, normalize, sentence_spans
from erv.verifier.protocol import (
    MAX_LABELS_PER_SENTENCE,
    Verifier,
    as_array,
    strict_label_set,
    thresholds_of,
    unreadable_by,
)

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Shaping:
    """What the strict reward asks of an explanation besides agreement, against known ways to game it.

    Shaping can only lower a reward. None switches a part off; `NO_SHAPING` switches off all of them. Counting
    a repeated sentence once is not a part of it: `strict` always does, `official` never. With that alone a
    repetition is free, and policies drift into it; see `repeats_earn`.

    Attributes:
        min_sentences: distinct sentences that must count for the full reward; fewer earn in proportion, so
            that one closing phrase is not worth as much as an explanation.
        min_words: words of the whole explanation; fewer earn in proportion.
        max_words: more earn in inverse proportion.
        max_named: different emotions that one sentence may name; a sentence that lists more matches no truth,
            but still counts.
        min_content_words: distinct words in the matching sentences that neither name emotions nor are
            grammar; fewer earn in proportion.
        min_cues: distinct words about face, body, voice or words in the matching sentences; fewer earn in
            proportion, none nothing.
        max_conclusions: matching sentences that only name the emotion; further ones don't count.
        max_repeats: sentences said again; an explanation with more earns `repeats_earn`.
        repeats_earn: 0 or less. At 0, what would earn nothing anyway repeats itself at no cost.

    `min_content_words`, `min_cues` and `max_conclusions` read English (`erv.rewards.evidence`). The
    verifier decides whether they apply, not the text, or a text could escape them: they are off for a
    verifier that was trained on another language, and on for one that doesn't say, with which an
    explanation in another language has no cues and earns nothing. `uncovered` says so.
    """

    min_sentences: int | None = 3
    min_words: int | None = 6
    max_words: int | None = 300
    max_named: int | None = 2
    min_content_words: int | None = 5
    min_cues: int | None = 1
    max_conclusions: int | None = 1
    max_repeats: int | None = 0
    repeats_earn: float = -1.0


NO_SHAPING = Shaping(None, None, None, None, None, None, None, None, 0.0)


@dataclass(frozen=True)
class ReadSentence:
    """A sentence as the reward reads it.

    Attributes:
        text: the sentence.
        labels: at most two, the most probable first; MAFW names, or others of the verifier. None under
            `strict` if no label reaches its threshold: the sentence is scenery and does not count.
        times: how often the explanation says it; above 1 only under `strict`, where it counts once.
        listing: whether it names more emotions than allowed, and so matches none.
        unreadable: whether it is outside what the verifier can read (`strict` only); it then has no labels.
        surplus: whether it only names the emotion, as allowed sentences before it do; it does not count.
        place: its first and last character (exclusive) in the completion, where it is said first.
    """

    text: str
    labels: tuple[str, ...]
    times: int = 1
    listing: bool = False
    surplus: bool = False
    unreadable: bool = False
    place: tuple[int, int] = (0, 0)

    def speaks_of(self, target: str) -> bool:
        """Whether it counts for this emotion."""
        return target in self.labels and not self.listing and not self.surplus

    def counts_for(self, target: str) -> bool:
        """Whether it is in the denominator: scenery is not; nor a purely neutral sentence, for an emotion."""
        if self.surplus or not (self.labels or self.listing):
            return False
        return target == NEUTRAL or self.listing or self.labels != (NEUTRAL,)


@dataclass(frozen=True)
class Assessment:
    """An explanation read against a truth.

    Attributes:
        target: the true emotion as a column of the verifier; None if it has no such column.
        sentences: in order of their first appearance.
        matching: those that express the target.
        counted: those in the denominator.
        needed: the denominator is at least this.
        words: of the whole explanation; 0 under `official`, where they don't matter.
        length: factor for too few or too many words, 1.0 within the band.
        content_words: distinct ones in the matching sentences; None if that doesn't matter or can't be read.
        cues: the same for words about face, body, voice or words.
        evidence: factor for too few of either, 1.0 for enough.
        repeats: sentences said again.
        repetitive: whether these are more than allowed, so that `repeats_earn` is all that is earned.
        repeats_earn: the reward in that case.
    """

    target: str | None
    sentences: tuple[ReadSentence, ...]
    matching: int = 0
    counted: int = 0
    needed: int = 1
    words: int = 0
    length: float = 1.0
    content_words: int | None = None
    cues: int | None = None
    evidence: float = 1.0
    repeats: int = 0
    repetitive: bool = False
    repeats_earn: float = 0.0

    @property
    def reward(self) -> float | None:
        """Between 0 and 1, or `repeats_earn`; None without a target."""
        if self.target is None:
            return None
        if self.repetitive:
            return self.repeats_earn
        if not self.counted:
            return 0.0
        return self.matching / max(self.counted, self.needed) * self.length * self.evidence

    def credits(self) -> tuple[Credit, ...]:
        """The sentences that count, each with its share: their mean is the reward."""
        if self.target is None or not self.counted:
            return ()
        counting = [item for item in self.sentences if item.counts_for(self.target)]
        if self.repetitive:
            return tuple(Credit(*item.place, self.repeats_earn) for item in counting)
        worth = self.counted / max(self.counted, self.needed) * self.length * self.evidence
        return tuple(Credit(*item.place, worth if item.speaks_of(self.target) else 0.0) for item in counting)


class ExplanationReward:
    """The callable that `explanation_reward` returns."""

    __name__ = "explanation_reward"  # TRL logs a reward under its name

    def __init__(self, verifier: Verifier, semantics: Semantics, shaping: Shaping | None) -> None:
        self._verifier = verifier
        self._options: dict[str, Any] = {"semantics": semantics, "shaping": shaping}

    def __call__(
        self, completions: Sequence[Completion], solution: Sequence[str], **columns: Any
    ) -> list[float | None]:
        """One reward per completion."""
        return [item.reward for item in self._assess(completions, solution, columns.get("dataset"))]

    def credited(
        self, completions: Sequence[Completion], solution: Sequence[str], **columns: Any
    ) -> list[Credited]:
        """The rewards with the verdict on each sentence that counts."""
        found = self._assess(completions, solution, columns.get("dataset"))
        return [Credited(item.reward, item.credits()) for item in found]

    def _assess(
        self,
        completions: Sequence[Completion],
        solution: Sequence[str],
        dataset: Sequence[str | None] | None,
    ) -> list[Assessment]:
        return assess(self._verifier, completions, solution, dataset, **self._options)


def explanation_reward(
    verifier: Verifier, *, semantics: Semantics = "strict", shaping: Shaping | None = None
) -> ExplanationReward:
    """The reward of the Emotional Rationale Verifier: the share of sentences that express the true emotion.

    A sentence has the labels above their thresholds, the two most probable ones if there are more. For a
    neutral truth the reward is matching / all sentences, otherwise matching / sentences that are not purely
    neutral (0.0 if there are none). An explanation without sentences earns 0.0.

    `strict` fixes the official rule: a sentence without a label above its threshold is scenery and counts
    neither for nor against, where `official` gives it its most probable label; so is a sentence that the
    verifier can't read, in another language or in words that it has never seen; the truth is read in its own
    data set's label space; a repeated sentence counts once; sentences are split by
    `split_sentences(..., semantics="strict")`; a sentence is neutral if that is its most probable label, and
    otherwise not, so `neutral` never appears beside an emotion; a completion with several think blocks is
    read as a whole; and see `Shaping`.

    Args:
        verifier: see `Verifier`; its thresholds apply under both semantics. A verifier that declares none has
            the official 0.1.
        semantics: `strict` or `official`.
        shaping: `strict` only; `Shaping()` if omitted.

    Returns:
        A callable (completions, solution, **columns) -> rewards. It calls the verifier once per batch, or not
        at all for a batch without sentences. A truth without a column in `verifier.labels` gives None.
    """
    return ExplanationReward(verifier, semantics, shaping)


def assess(
    verifier: Verifier,
    completions: Sequence[Completion],
    solution: Sequence[str],
    dataset: Sequence[str | None] | None = None,
    *,
    semantics: Semantics = "strict",
    shaping: Shaping | None = None,
) -> list[Assessment]:
    """Reads the explanations of a batch; see `explanation_reward`.

    Args:
        verifier: called once for all sentences, or not at all if there are none.
        completions: n completions.
        solution: n truths, bare or as `<answer>truth</answer>`.
        dataset: n names of label spaces; None means MAFW. `official` ignores them.
        semantics: `strict` or `official`.
        shaping: `strict` only; `Shaping()` if omitted.

    Returns:
        n readings.
    """
    rule = NO_SHAPING if semantics == "official" else (shaping or Shaping())
    texts = [completion_text(completion) for completion in completions]
    explanations = [_explanations(text, semantics) for text in texts]
    groups = [_sentences(text, blocks, semantics) for text, blocks in zip(texts, explanations, strict=True)]
    read = iter(_read(verifier, groups, semantics, rule))
    vocabulary = getattr(verifier, "vocabulary", None)
    listed = lists_fit(None if vocabulary is None else vocabulary.words)
    found = []
    for text, blocks, group, truth, name in zip(
        texts, explanations, groups, solution, dataset or [None] * len(solution), strict=True
    ):
        sentences = tuple(next(read) for _ in group)
        words = 0 if semantics == "official" else sum(count_words(text[start:end]) for start, end in blocks)
        target = target_of(truth, name, semantics, verifier.labels)
        found.append(_weighed(sentences, words, target, rule, listed))
    return found


def uncovered(verifier: Verifier, semantics: Semantics, shaping: Shaping | None = None) -> str | None:
    """What to know, before training, of explanations in other languages than the evidence lists' English.

    Args:
        verifier: that will read the explanations.
        semantics: `strict` or `official`, which asks for no evidence.
        shaping: `Shaping()` if omitted.

    Returns:
        A sentence, or None if the lists are in the language of the verifier, or aren't used.
    """
    rule = NO_SHAPING if semantics == "official" else (shaping or Shaping())
    if {rule.min_content_words, rule.min_cues, rule.max_conclusions} == {None}:
        return None
    parts = "grpo.shaping's min_content_words, min_cues and max_conclusions"
    vocabulary = getattr(verifier, "vocabulary", None)
    if vocabulary is None:
        return (
            f"the verifier does not say which words it was trained on, so {parts} read every explanation as"
            " English: one in another language has no cues and earns nothing; set them to null if yours are"
            " not in English"
        )
    if not lists_fit(vocabulary.words):
        return (
            f"the verifier was trained on another language than English, so {parts} don't apply: an"
            " explanation that only names the emotion earns as much as one with evidence"
        )
    return None


def _weighed(
    sentences: tuple[ReadSentence, ...], words: int, target: str | None, rule: Shaping, listed: bool
) -> Assessment:
    if target is None:
        return Assessment(None, sentences, words=words)
    length = 1.0
    if rule.min_words is not None and words < rule.min_words:
        length = words / rule.min_words
    elif rule.max_words is not None and words > rule.max_words:
        length = rule.max_words / words
    sentences = _without_surplus(sentences, target, rule.max_conclusions if listed else None)
    matching = [sentence for sentence in sentences if sentence.speaks_of(target)]
    repeats = sum(sentence.times - 1 for sentence in sentences)
    return Assessment(
        target,
        sentences,
        matching=len(matching),
        counted=sum(sentence.counts_for(target) for sentence in sentences),
        needed=rule.min_sentences or 1,
        words=words,
        length=length,
        repeats=repeats,
        repetitive=rule.max_repeats is not None and repeats > rule.max_repeats,
        repeats_earn=rule.repeats_earn,
        **(_evidence([sentence.text for sentence in matching], rule) if listed else {}),
    )


def _without_surplus(
    sentences: tuple[ReadSentence, ...], target: str, allowed: int | None
) -> tuple[ReadSentence, ...]:
    """Marks the matching sentences that only name the emotion, after the first `allowed` ones."""
    if allowed is None:
        return sentences
    found, conclusions = [], 0
    for sentence in sentences:
        if sentence.speaks_of(target) and not evidence_of(sentence.text).content:
            conclusions += 1
            sentence = replace(sentence, surplus=conclusions > allowed)
        found.append(sentence)
    return tuple(found)


def _evidence(matching: Sequence[str], rule: Shaping) -> dict[str, Any]:
    """How much evidence the matching sentences offer, and the factor for it."""
    found = evidence_in(matching)
    if not matching or (rule.min_content_words is None and rule.min_cues is None):
        return {}
    shares = [1.0]
    if rule.min_content_words is not None:
        shares.append(len(found.content) / rule.min_content_words)
    if rule.min_cues is not None:
        shares.append(len(found.cues) / rule.min_cues)
    return {"content_words": len(found.content), "cues": len(found.cues), "evidence": min(shares)}


def target_of(truth: str, dataset: str | None, semantics: Semantics, labels: Sequence[str]) -> str | None:
    """A truth as a column of the verifier, or None if there is none for it."""
    if semantics == "official":
        # Whatever the data set: the official code applies the MAFW rules to all.
        name: str | None = official_normalize(official_answer(truth), "mafw")
        return name if name in OFFICIAL_NAMES and name in labels else None
    return verifier_name(bare(truth), dataset, labels)


def _explanations(text: str, semantics: Semantics) -> list[tuple[int, int]]:
    """Where the think blocks that count begin and end."""
    blocks = tagged_spans(text, "think")
    return blocks[:1] if semantics == "official" else blocks


@dataclass(frozen=True)
class _Said:
    """A sentence, how often it occurs, and where it occurs first."""

    text: str
    times: int
    place: tuple[int, int]


def _sentences(text: str, blocks: Sequence[tuple[int, int]], semantics: Semantics) -> list[_Said]:
    """The sentences of an explanation, in order of their first appearance."""
    places = [
        (begin + start, begin + end)
        for begin, stop in blocks
        for start, end in sentence_spans(text[begin:stop], semantics=semantics)
    ]
    if semantics == "official":
        return [_Said(text[start:end], 1, (start, end)) for start, end in places]
    first: dict[str, tuple[int, int]] = {}
    times: dict[str, int] = {}
    for start, end in places:
        key = normalize(text[start:end])
        first.setdefault(key, (start, end))
        times[key] = times.get(key, 0) + 1
    return [_Said(text[start:end], times[key], (start, end)) for key, (start, end) in first.items()]


def _read(
    verifier: Verifier, groups: Sequence[Sequence[_Said]], semantics: Semantics, rule: Shaping
) -> list[ReadSentence]:
    """All sentences of a batch, read in one call of the verifier."""
    flat = [item for group in groups for item in group]
    if not flat:
        return []
    labels, thresholds = list(verifier.labels), thresholds_of(verifier)
    texts = [item.text for item in flat]
    rows = as_array(verifier.predict(texts))
    if semantics == "official":
        return [
            ReadSentence(item.text, tuple(_official_label_set(row, thresholds, labels)), place=item.place)
            for item, row in zip(flat, rows, strict=True)
        ]
    return [
        ReadSentence(
            item.text,
            () if foreign else tuple(strict_label_set(row, thresholds, labels)),
            item.times,
            _lists(item.text, rule.max_named),
            unreadable=foreign,
            place=item.place,
        )
        for item, row, foreign in zip(flat, rows, unreadable_by(verifier, texts), strict=True)
    ]


def _lists(text: str, max_named: int | None) -> bool:
    from erv.labels import LabelSpace

    return max_named is not None and len(LabelSpace.load("mafw").named_in(text)) > max_named


def _official_label_set(row: np.ndarray, thresholds: np.ndarray, labels: list[str]) -> list[str]:
    above = (row > thresholds).nonzero()[0].tolist()
    if not above:
        above = [int(row.argmax())]
    elif len(above) > MAX_LABELS_PER_SENTENCE:
        above = (-row).argsort(kind="stable")[:MAX_LABELS_PER_SENTENCE].tolist()
    return [labels[index] for index in above]
