"""Sentences of explanations, as the verifier labels, the explanation reward counts and judges read them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from erv.errors import DataError
from erv.files import read_parquet
from erv.prompts import parse_completion

Semantics = Literal["strict", "official"]

_OFFICIAL_BOUNDARY = re.compile(r"(?<=[.!?])\s+")

# Within a line, a sentence ends with a run of terminators and any closing quotes and brackets, followed by
# white space; CJK terminators need no white space after them.
_STRICT_BOUNDARY = re.compile(r"""(?<=[.!?…])["'”’)\]]*\s+|(?<=[。！？])(?![。！？])["”’』」)]*\s*""")
# What no sentence begins with: after a closing quote it goes on, as in `"what?!", he says`.
_GOING_ON = ",;:–—，、；："
_ABBREVIATIONS = frozenset(
    ["mr", "mrs", "ms", "dr", "prof", "vs", "etc", "e.g", "i.e", "cf", "a.m", "p.m", "u.s", "u.k"]
)
_LONGEST = max(map(len, _ABBREVIATIONS)) + 8  # with quotes and brackets around it
_WORD = re.compile(r"\w")
_WORDS = re.compile(r"\w+")
# A reader of texts can't judge one of whose words it has seen hardly any. English about something else still
# shares its grammar (in tests at most 0.78 of a sentence's words were new); another language hardly anything.
UNREADABLE_SHARE = 0.8
_READ_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]|[^\W\d_]+")
_IDEOGRAPH = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


@dataclass(frozen=True)
class Vocabulary:
    """The words of the texts that a verifier or judge was trained on; in Chinese and Japanese, characters."""

    words: frozenset[str]

    @staticmethod
    def of(texts: Iterable[str]) -> Vocabulary:
        """The words of some texts."""
        return Vocabulary(frozenset(word for text in texts for word in _read_words(text)))

    def unreadable(self, text: str) -> bool:
        """Whether at least `UNREADABLE_SHARE` of its words are unknown; False for a text without words."""
        words = _read_words(text)
        return bool(words) and sum(word not in self.words for word in words) >= UNREADABLE_SHARE * len(words)


def foreign_script(text: str) -> bool:
    """Whether most letters are not Latin: what can be said without a vocabulary."""
    words = _read_words(text)
    letters = "".join(words)
    return bool(letters) and 2 * sum(letter > "\u024f" for letter in letters) > len(letters)


def _read_words(text: str) -> list[str]:
    return _READ_WORD.findall(text.casefold())


def split_sentences(text: str, *, semantics: Semantics = "official") -> list[str]:
    """Splits a text into sentences.

    `official` is the rule of the method's released code (`official-semantics`, explanation reward): a
    boundary is white space after `.`, `!` or `?` that is followed by an even number of `"` up to the end of
    the text. So an unbalanced quote stops every split before it, abbreviations split, and CJK punctuation
    does not. The rule's regular expression looks ahead to the end at every boundary; this counts the quotes
    instead, in linear time.

    `strict` fixes that: closing quotes and brackets belong to their sentence, `…`, line breaks and CJK
    terminators end one, abbreviations, initials and the numbers of items do not, and pieces without a letter
    or digit are dropped. A sentence goes on after a closing quote or bracket if a small letter, a comma, a
    colon or a dash follows: `"What?!" in a high voice` is one.

    Args:
        text: an explanation, without its tags.
        semantics: `official` or `strict`.

    Returns:
        The sentences in order, none of them empty.
    """
    return [text[start:end] for start, end in sentence_spans(text, semantics=semantics)]


def sentence_spans(text: str, *, semantics: Semantics = "official") -> list[tuple[int, int]]:
    """Where the sentences of `split_sentences` begin and end in the text."""
    if semantics == "official":
        return _split_official(text, *_stripped(text, 0, len(text)))
    return _split_strict(text)


def normalize(sentence: str) -> str:
    """The words of a sentence without case, punctuation and white space, to find equal sentences."""
    return " ".join(_WORDS.findall(sentence.casefold()))


def encodable(text: str) -> str:
    """The text with lone surrogates replaced: Python allows them, but UTF-8, and so a tokenizer, does not."""
    return text.encode("utf-8", errors="replace").decode("utf-8")


def count_words(text: str) -> int:
    """Number of words between blanks; in scripts without blanks (Chinese, Japanese), of characters."""
    return len(_IDEOGRAPH.sub(" x ", text).split())


def read_sentences(path: Path) -> list[str]:
    """The sentences of `data/sentences.parquet`, of all splits.

    Raises:
        DataError: the file is missing or damaged.
    """
    if not path.is_file():
        raise DataError(f"{path}: sentences not found; run `dvc repro distill` first")
    return [str(value) for value in read_parquet(path, "distill", ["sentence"]).column(0).to_pylist()]


def explanation_shape(completions: Sequence[str]) -> dict[str, float]:
    """How long explanations are and how much they repeat themselves: two ways to game a reward.

    Args:
        completions: n completions; one without an explanation has no sentence and no word.

    Returns:
        sentences and words (means per completion) and repeated (share of all sentences that repeat an earlier
        one of the same explanation, ignoring case and punctuation). All are 0 for n = 0.
    """
    sentences = words = repeated = 0
    for completion in completions:
        said = [
            normalize(text)
            for text in split_sentences(parse_completion(completion).explanation or "", semantics="strict")
        ]
        sentences += len(said)
        words += sum(count_words(text) for text in said)
        repeated += len(said) - len(set(said))
    n = max(1, len(completions))
    return {
        "sentences": sentences / n,
        "words": words / n,
        "repeated": repeated / sentences if sentences else 0.0,
    }


def _split_official(text: str, start: int, stop: int) -> list[tuple[int, int]]:
    quotes_after = text.count('"', start, stop)
    pieces, counted = [], start
    for boundary in _OFFICIAL_BOUNDARY.finditer(text, start, stop):
        quotes_after -= text.count('"', counted, boundary.start())
        counted = boundary.start()
        if quotes_after % 2 == 0:
            pieces.append((start, boundary.start()))
            start = boundary.end()
    pieces.append((start, stop))
    return [(start, end) for start, end in pieces if end > start]


def _split_strict(text: str) -> list[tuple[int, int]]:
    # Everything here takes linear time, since a policy may write long and shapeless text.
    pieces, start = [], 0
    for line in text.splitlines(keepends=True):
        first, last = _stripped(text, start, start + len(line))
        pieces += [(first + begin, first + end) for begin, end in _split_line(text[first:last])]
        start += len(line)
    return [(start, end) for start, end in pieces if _WORD.search(text, start, end)]


def _split_line(text: str) -> list[tuple[int, int]]:
    pieces, start = [], 0
    for boundary in _STRICT_BOUNDARY.finditer(text):
        following = text[boundary.end() : boundary.end() + 1]
        ending = text[max(start, boundary.start() - _LONGEST) : boundary.start()]
        if not following or _goes_on(ending, following):
            continue
        if boundary[0].strip() and (following.islower() or following in _GOING_ON):
            continue
        pieces.append(_stripped(text, start, boundary.end()))
        start = boundary.end()
    return [*pieces, _stripped(text, start, len(text))]


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    """The part of a span that is left without outer white space."""
    part = text[start:end]
    begin = start + len(part) - len(part.lstrip())
    return begin, max(begin, start + len(part.rstrip()))


def _goes_on(ending: str, following: str) -> bool:
    """Whether the full stop at the end of `ending` belongs to an abbreviation or an initial."""
    if not ending.endswith("."):
        return False
    word = ending[:-1].rsplit(maxsplit=1)[-1:]
    name = word[0].strip("\"'“‘([").lower() if word else ""
    if name in {"a.m", "p.m", "etc", "u.s", "u.k"}:
        return following.islower()
    if name.isdigit() and ending[:-1].strip() == name:  # the number of an item: "1. He smiles."
        return True
    return name in _ABBREVIATIONS or (len(name) == 1 and name.isalpha() and name != "i")
