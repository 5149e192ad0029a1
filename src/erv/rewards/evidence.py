"""What an explanation offers as evidence: words about what can be seen or heard, besides names of emotions.

`Fear. Fear and terror. Afraid, scared, frightened.` names an emotion and shows nothing. The lists behind this
(`evidence.yaml`) are English and were written for this project; `Evidence.known` says whether they can read
a text at all.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources

import yaml

from erv.sentences import count_words

FILE = "evidence.yaml"
KINDS = ("face", "body", "voice", "words")
READABLE_SHARE = 0.25  # of the words; English text has more than half, texts in other languages hardly any

_WORD = re.compile(r"[^\W\d_]+")
_QUOTED = re.compile(r"[\"“]\s*\w[^\"”]*[\"”]")
_ENDINGS = ("s", "es", "ed", "d", "ing", "er", "ly")
_QUOTE = '"quoted"'  # words of the clip, quoted: a cue whatever they are


@dataclass(frozen=True)
class Evidence:
    """What some sentences offer.

    Attributes:
        content: distinct words, by base form, that neither name an emotion nor are grammar.
        cues: those among them that tell of face, body, voice or words; a quotation counts as one.
        words: number of all words, repeated ones included.
        known: number of those that the lists have.
    """

    content: frozenset[str] = frozenset()
    cues: frozenset[str] = frozenset()
    words: int = 0
    known: int = 0

    @property
    def readable(self) -> bool:
        """Whether the lists can read the text; they can't judge one in another language."""
        return self.known >= READABLE_SHARE * self.words

    def __or__(self, other: Evidence) -> Evidence:
        return Evidence(
            self.content | other.content,
            self.cues | other.cues,
            self.words + other.words,
            self.known + other.known,
        )


@functools.lru_cache(maxsize=100_000)
def evidence_of(sentence: str) -> Evidence:
    """The evidence in a sentence."""
    lists = _lists()
    words = _WORD.findall(sentence.casefold())
    bases = [_base(word) for word in words]
    cues = {base for base in bases if base in lists.cues}
    other = {_stem(word) for word, base in zip(words, bases, strict=True) if base is None}
    quoted = " ".join(_QUOTED.findall(sentence)).casefold()
    if any((base := _base(word)) is None or base in lists.cues for word in _WORD.findall(quoted)):
        cues.add(_QUOTE)
    content = frozenset(other | (cues - {_QUOTE}))
    known = sum(base is not None for base in bases)
    return Evidence(content, frozenset(cues), max(len(words), count_words(sentence)), known)


def evidence_in(sentences: Iterable[str]) -> Evidence:
    """The evidence in several sentences together."""
    return functools.reduce(Evidence.__or__, map(evidence_of, sentences), Evidence())


@dataclass(frozen=True)
class _Lists:
    named: frozenset[str]  # grammar and emotions
    cues: frozenset[str]  # of all kinds


@functools.cache
def _lists() -> _Lists:
    content = yaml.safe_load(resources.files(__package__).joinpath(FILE).read_text(encoding="utf-8"))
    cues = {word for kind in KINDS for word in content["cues"][kind].split()}
    return _Lists(frozenset({*content["plain"].split(), *content["emotions"].split()}), frozenset(cues))


def _base(word: str) -> str | None:
    """The form in which the lists have a word, or None. Grammar and emotions come first."""
    lists = _lists()
    forms = [word, *_forms(word)]
    return next((form for form in forms if form in lists.named or form in lists.cues), None)


def _forms(word: str) -> list[str]:
    """Possible base forms of an English word, the likeliest first."""
    found = []
    for ending in _ENDINGS:
        rest = word.removesuffix(ending)
        if rest == word or len(rest) < 3:
            continue
        found.append(rest)
        if ending in ("ed", "ing", "er", "es"):
            found += [rest + "e", rest[:-1]] if rest[-1:] == rest[-2:-1] else [rest + "e"]
        if rest.endswith("i"):
            found.append(rest[:-1] + "y")
    return found


def _stem(word: str) -> str:
    """One form for the inflections of a word that no list has."""
    return min(_forms(word), key=len, default=word)
