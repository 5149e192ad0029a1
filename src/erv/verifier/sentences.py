"""Splits an explanation into sentences: what the verifier labels and the explanation reward counts."""

from __future__ import annotations

import re
from typing import Literal

Semantics = Literal["strict", "official"]

_OFFICIAL_BOUNDARY = re.compile(r"(?<=[.!?])\s+")

# A sentence ends with a run of terminators, with the quotes and brackets that it closes, before white space;
# CJK terminators need no white space after them.
_STRICT_BOUNDARY = re.compile(r"""(?<=[.!?…])["'”’)\]]*\s+|(?<=[。！？])["”’』」)]*\s*|\s*\n\s*""")
_ABBREVIATIONS = frozenset(
    ["mr", "mrs", "ms", "dr", "prof", "vs", "etc", "e.g", "i.e", "cf", "a.m", "p.m", "u.s", "u.k"]
)
_LAST_WORD = re.compile(r"(\S+)\.[\"'”’)\]]*\s*$")
_WORD = re.compile(r"\w")
_WORDS = re.compile(r"\w+")


def split_sentences(text: str, *, semantics: Semantics = "official") -> list[str]:
    """Splits a text into sentences.

    `official` is the rule of the method's released code (`official-semantics`, explanation reward): a
    boundary is white space after `.`, `!` or `?` that is followed by an even number of `"` up to the end of
    the text. So an unbalanced quote stops every split before it, abbreviations split, and CJK punctuation
    does not. The rule's regular expression looks ahead to the end at every boundary; this counts the quotes
    instead, in linear time.

    `strict` mends that: closing quotes and brackets belong to their sentence, `…`, line breaks and CJK
    terminators end one, abbreviations and initials do not, and pieces without a letter or digit are dropped.

    Args:
        text: an explanation, without its tags.
        semantics: `official` or `strict`.

    Returns:
        The sentences in order, none of them empty.
    """
    text = text.strip()
    if semantics == "official":
        return _split_official(text)
    return _split_strict(text)


def normalize(sentence: str) -> str:
    """The words of a sentence without case, punctuation and white space: what makes two of them the same."""
    return " ".join(_WORDS.findall(sentence.casefold()))


def _split_official(text: str) -> list[str]:
    quotes_after = text.count('"')
    pieces, start, counted = [], 0, 0
    for boundary in _OFFICIAL_BOUNDARY.finditer(text):
        quotes_after -= text.count('"', counted, boundary.start())
        counted = boundary.start()
        if quotes_after % 2 == 0:
            pieces.append(text[start : boundary.start()])
            start = boundary.end()
    pieces.append(text[start:])
    return [piece for piece in pieces if piece]


def _split_strict(text: str) -> list[str]:
    pieces, start = [], 0
    for boundary in _STRICT_BOUNDARY.finditer(text):
        following = text[boundary.end() : boundary.end() + 1]
        ended = text[start : boundary.end()]
        if not following or ("\n" not in boundary.group() and _goes_on(ended, following)):
            continue
        pieces.append(ended.strip())
        start = boundary.end()
    pieces.append(text[start:].strip())
    return [piece for piece in pieces if _WORD.search(piece)]


def _goes_on(ended: str, following: str) -> bool:
    """Whether the full stop that `ended` ends with belongs to an abbreviation or an initial."""
    match = _LAST_WORD.search(ended)
    if match is None:
        return False
    word = match.group(1).strip("\"'“‘([").lower()
    if word in {"a.m", "p.m", "etc", "u.s", "u.k"}:
        return following.islower()
    return word in _ABBREVIATIONS or (len(word) == 1 and word.isalpha() and word != "i")
