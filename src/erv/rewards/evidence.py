"""What an explanation offers as evidence: words about what can be seen or heard, besides names of emotions.

`Fear. Fear and terror. Afraid, scared, frightened.` names an emotion and shows nothing. The lists behind this
(`evidence.yaml`) are English, written for this project; `lists_fit` says whether they suit a verifier.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from importlib import resources

import yaml

FILE = "evidence.yaml"
KINDS = ("face", "body", "voice", "words")
# Of the lists' 330 words of grammar. Any English corpus has more of them, another language next to none.
MIN_GRAMMAR_WORDS = 15

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
    """

    content: frozenset[str] = frozenset()
    cues: frozenset[str] = frozenset()

    def __or__(self, other: Evidence) -> Evidence:
        return Evidence(self.content | other.content, self.cues | other.cues)


def lists_fit(vocabulary: Collection[str] | None) -> bool:
    """Whether the lists suit a verifier that was trained on these words; they can't judge another language.

    The verifier decides, not the single text: a text of odd words must not escape. Without a vocabulary, as
    for a released classifier, they do.
    """
    if vocabulary is None:
        return True
    return sum(word in vocabulary for word in _lists().plain) >= MIN_GRAMMAR_WORDS


@functools.lru_cache(maxsize=100_000)
def evidence_of(sentence: str) -> Evidence:
    """The evidence in a sentence; none in one that only heaps words around the name of an emotion."""
    lists = _lists()
    words = _WORD.findall(sentence.casefold())
    bases = [_base(word) for word in words]
    if _heaped(bases):
        return Evidence()
    cues = {base for base in bases if base in lists.cues}
    other = {_stem(word) for word, base in zip(words, bases, strict=True) if base is None}
    quoted = " ".join(_QUOTED.findall(sentence)).casefold()
    if any((base := _base(word)) is None or base in lists.cues for word in _WORD.findall(quoted)):
        cues.add(_QUOTE)
    return Evidence(frozenset(other | (cues - {_QUOTE})), frozenset(cues))


def evidence_in(sentences: Iterable[str]) -> Evidence:
    """The evidence in several sentences together."""
    return functools.reduce(Evidence.__or__, map(evidence_of, sentences), Evidence())


def _heaped(bases: Sequence[str | None]) -> bool:
    """Whether a sentence names an emotion without grammar, twice, or with more than half of its words."""
    lists = _lists()
    named = [base for base in bases if base in lists.emotions]
    if not named:
        return False
    grammar = any(base in lists.plain for base in bases)
    return not grammar or len(set(named)) < len(named) or 2 * len(named) > len(bases)


@dataclass(frozen=True)
class _Lists:
    plain: frozenset[str]  # grammar
    emotions: frozenset[str]
    cues: frozenset[str]  # of all kinds

    @functools.cached_property
    def all(self) -> frozenset[str]:
        return self.plain | self.emotions | self.cues


@functools.cache
def _lists() -> _Lists:
    content = yaml.safe_load(resources.files(__package__).joinpath(FILE).read_text(encoding="utf-8"))
    cues = {word for kind in KINDS for word in content["cues"][kind].split()}
    plain, emotions = (frozenset(content[kind].split()) for kind in ("plain", "emotions"))
    return _Lists(plain, emotions, frozenset(cues))


def _base(word: str) -> str | None:
    """The form in which the lists have a word, or None. Grammar and emotions come first."""
    lists = _lists()
    forms = [word, *_forms(word)]
    return next((form for form in forms if form in lists.all), None)


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
