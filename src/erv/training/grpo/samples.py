"""A few completions of a step, with what they earned and how the verifier reads each sentence.

They are for people to look at. Reading changes nothing, neither the rewards nor the verifier's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from erv.rewards.answers import bare
from erv.rewards.explanation import Assessment, ReadSentence, Shaping, assess
from erv.sentences import Semantics, encodable
from erv.training.grpo.generation import Generation
from erv.verifier.protocol import Verifier

COUNT = 8
_READ = ("sentences_matching", "sentences_counted", "explanation_reward", "verdicts")

_STYLE = (
    "body{font:14px/1.45 sans-serif;margin:1.5em;max-width:72em}"
    "section{border-top:1px solid #ccc;padding:.8em 0}"
    "pre{white-space:pre-wrap;background:#f6f6f6;padding:.6em}"
    "td,th{text-align:left;padding:.15em .8em .15em 0;vertical-align:top}"
    ".yes{color:#06702c}.no{color:#a3160b}.none{color:#666}"
)


@dataclass(frozen=True)
class Sample:
    """One completion.

    Attributes:
        clip_id, dataset, label: the clip and its true emotion; None if the rows don't say.
        completion: the sampled text.
        rewards: value by name; None if the completion can't be scored.
        total: the weighted sum of the rewards.
        advantage: the advantage that the completion was trained with.
        read: the verifier's reading; None without a verifier or without a label.
        credits: stretches of the completion that were trained with an advantage of their own, and which; None
            without credit by sentence.
    """

    clip_id: str | None
    dataset: str | None
    label: str | None
    completion: str
    rewards: dict[str, float | None]
    total: float | None
    advantage: float
    read: Assessment | None
    credits: tuple[tuple[str, float], ...] | None = None


@dataclass(frozen=True)
class SampleTable:
    """The samples of a step: `columns` and `rows` make a table, `html` makes a page."""

    step: int
    samples: tuple[Sample, ...]

    @property
    def columns(self) -> list[str]:
        """Names of the columns; those for the verifier's reading are left out if there is none."""
        rewards = [f"reward/{name}" for name in self.samples[0].rewards] if self.samples else []
        named = ["step", "clip_id", "dataset", "label", "completion", *rewards, "reward", "advantage"]
        if self._is_credited():
            named.append("credits")
        return [*named, *_READ] if self._is_read() else named

    @property
    def rows(self) -> list[list[Any]]:
        """One row per sample; its verdicts have one line per sentence."""
        return [self._row(sample) for sample in self.samples]

    def _is_read(self) -> bool:
        return any(sample.read is not None for sample in self.samples)

    def _is_credited(self) -> bool:
        return any(sample.credits is not None for sample in self.samples)

    def _row(self, sample: Sample) -> list[Any]:
        row = [
            self.step,
            sample.clip_id,
            sample.dataset,
            sample.label,
            sample.completion,
            *sample.rewards.values(),
            sample.total,
            sample.advantage,
        ]
        if self._is_credited():
            row.append("\n".join(f"[{value:+.2f}] {_plain(text)}" for text, value in sample.credits or ()))
        if not self._is_read():
            return row
        if sample.read is None:
            return [*row, None, None, None, None]
        lines = [f"[{verdict(item, sample.read.target)}] {_said(item)}" for item in sample.read.sentences]
        return [*row, sample.read.matching, sample.read.counted, sample.read.reward, "\n".join(lines)]

    def html(self) -> str:
        """A complete page: each completion, what it earned, and its sentences with their verdicts."""
        parts = "\n".join(_section(sample) for sample in self.samples)
        title = f"Samples of step {self.step}"
        return encodable(
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f"<style>{_STYLE}</style></head>\n<body><h1>{title}</h1>\n{parts}\n</body></html>\n"
        )


def take_samples(
    step: int,
    generation: Generation,
    verifier: Verifier | None,
    *,
    semantics: Semantics = "strict",
    shaping: Shaping | None = None,
    count: int = COUNT,
) -> SampleTable:
    """The first completions of the first groups, then their second ones, until there are `count`.

    Args:
        step: optimiser step, from 1.
        generation: the completions of the step.
        verifier: reads the sentences; None to leave them unread. A verifier with a cache must only read it
            (`EmotionVerifier.reader`); otherwise a resumed run gives another result.
        semantics: as in `erv.rewards.explanation.assess`.
        shaping: as in `erv.rewards.explanation.assess`.
        count: maximum number of samples.
    """
    total = len(generation.completions)
    places = sorted(range(total), key=lambda row: (row % generation.group, row))[:count]
    texts = [generation.completions[row] for row in places]
    truths = [_cell(generation, "solution", row) for row in places]
    datasets = [_cell(generation, "dataset", row) for row in places]
    read: Sequence[Assessment | None] = [None] * len(places)
    if verifier is not None and all(truth is not None for truth in truths):
        read = assess(verifier, texts, truths, datasets, semantics=semantics, shaping=shaping)
    rewards, totals = generation.trained_rewards, generation.totals
    samples = [
        Sample(
            clip_id=_cell(generation, "clip_id", row),
            dataset=dataset,
            label=None if truth is None else bare(truth),
            completion=text,
            rewards={name: values[row] for name, values in rewards.items()},
            total=totals[row],
            advantage=generation.advantages[row],
            read=found,
            credits=_credits(generation, row) if generation.credits else None,
        )
        for row, text, truth, dataset, found in zip(places, texts, truths, datasets, read, strict=True)
    ]
    return SampleTable(step, tuple(samples))


def verdict(sentence: ReadSentence, target: str | None) -> str:
    """Says whether a sentence expresses the true emotion, and if not, why."""
    if target is None:
        said = "the verifier has no such emotion"
    elif sentence.listing:
        said = "names too many emotions, matches none"
    elif sentence.unreadable:
        said = "unreadable for the verifier, not counted"
    elif not sentence.labels:
        said = "no emotion above its threshold, not counted"
    elif sentence.surplus:
        said = "only names the emotion once more, not counted"
    elif sentence.speaks_of(target):
        said = "matches"
    elif sentence.counts_for(target):
        said = "another emotion"
    else:
        said = "merely neutral, not counted"
    return f"{said}; said {sentence.times} times, counts once" if sentence.times > 1 else said


def _cell(generation: Generation, column: str, row: int) -> Any:
    values = generation.columns.get(column)
    return None if values is None else values[row]


def _credits(generation: Generation, row: int) -> tuple[tuple[str, float], ...]:
    text = generation.completions[row]
    return tuple((text[start:end], value) for start, end, value in generation.credits[row])


def _said(sentence: ReadSentence) -> str:
    return f"{', '.join(sentence.labels) or 'none'}: {_plain(sentence.text)}"


def _plain(text: str) -> str:
    return " ".join(text.split())


def _section(sample: Sample) -> str:
    title = escape(f"{sample.dataset or ''} {sample.clip_id or ''}: {sample.label or 'no label'}".strip())
    rewards = ", ".join(f"{name} {_number(value)}" for name, value in sample.rewards.items())
    earned = escape(f"{rewards}; sum {_number(sample.total)}, advantage {sample.advantage:+.2f}")
    return (
        f"<section><h2>{title}</h2><p>{earned}</p><pre>{escape(sample.completion)}</pre>"
        f"{_sentences(sample.read)}{_stretches(sample.credits)}</section>"
    )


def _stretches(credits: tuple[tuple[str, float], ...] | None) -> str:
    if not credits:
        return ""
    rows = "".join(
        f'<tr class="{"yes" if value > 0 else "no"}"><td>{value:+.2f}</td>'
        f"<td>{escape(_plain(text))}</td></tr>"
        for text, value in credits
    )
    return f"<table><tr><th>Advantage</th><th>of the tokens in</th></tr>{rows}</table>"


def _sentences(read: Assessment | None) -> str:
    if read is None:
        return ""
    if not read.sentences:
        return '<p class="none">No explanation with a sentence.</p>'
    lines = []
    for item in read.sentences:
        words = verdict(item, read.target)
        kind = "none"
        if read.target is not None and item.counts_for(read.target):
            kind = "yes" if item.speaks_of(read.target) else "no"
        cells = (words, ", ".join(item.labels) or "none", _plain(item.text))
        lines.append(f'<tr class="{kind}">' + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    how = (
        "repeats itself"
        if read.repetitive
        else f"{read.matching} of {max(read.counted, read.needed)} sentences, length x {read.length:.2f},"
        f" evidence x {read.evidence:.2f}"
    )
    earns = f"{how}: explanation reward {_number(read.reward)}"
    return (
        "<table><tr><th>Verdict</th><th>Verifier</th><th>Sentence</th></tr>"
        f"{''.join(lines)}</table><p>{escape(earns)}</p>"
    )


def _number(value: float | None) -> str:
    return "not scored" if value is None else f"{value:.2f}"
