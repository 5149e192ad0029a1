"""Recognises text that was decoded with the wrong encoding, or not decoded to the end, before it came here.

Such a file is valid UTF-8, so decoding it finds nothing: `cafÃ©` is what becomes of `café` when somebody
opens UTF-8 as Latin-1 and saves it, and `isn&#39;t` is left of a web page. The patterns below don't occur in
text that people write.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from erv.ingest.readers.reading import Check, first_clips, some

# What the bytes 0x80..0xbf become in Latin-1 and in Windows-1252.
_REST = "[\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"
_PATTERNS = (
    (re.compile("\ufffd|锟斤拷"), "characters that could not be decoded"),
    (re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u0080-\u0084\u0086-\u009f]"), "control characters"),
    # `Ã©`, `Â»`; `â€™`; a byte order mark; two or more characters of other scripts (`Ð¿Ñ€`, `æ„¤æ€’`)
    (re.compile(f"[ÂÃ]{_REST}"), "UTF-8 that was read as Latin-1"),
    (re.compile(f"â[\u0080€]{_REST}|ï»¿|ï¿½"), "UTF-8 that was read as Latin-1"),
    (re.compile(f"(?:[Ã-ß]{_REST}){{2}}|(?:[à-ï]{_REST}{{2}}){{2}}"), "UTF-8 that was read as Latin-1"),
    (re.compile("鈥"), "UTF-8 that was read as GB18030"),
    (re.compile("‚Ä[\u0080-\uffff]|[√¬][\u0080-\uffff]"), "UTF-8 that was read as Mac Roman"),
    (
        re.compile(r"&(?:#\d{2,5}|#x[0-9a-fA-F]{2,4}|amp|quot|apos|lt|gt|nbsp);"),
        "characters as HTML writes them",
    ),
    (re.compile(r"\\(?:[nrt](?![a-z])|u[0-9a-fA-F]{4})"), "characters that were escaped twice"),
)
_LATIN_RUN = re.compile("[\u00a1-\u00fe]{4,}")
_LETTER_BESIDE_IDEOGRAPH = re.compile("[A-Za-z][\u3400-\u9fff]|[\u3400-\u9fff][A-Za-z]")


class Damage(NamedTuple):
    """What is wrong with a text, e.g. `UTF-8 that was read as Latin-1`, and the place: `'cafÃ©'`."""

    what: str
    place: str


def damage(text: str) -> Damage | None:
    """What is wrong with a text, or None."""
    for pattern, what in _PATTERNS:
        match = pattern.search(text)
        if match:
            return Damage(what, _around(text, match))
    for match in _LATIN_RUN.finditer(text):
        if len(set(match[0])) > 2 and _is_chinese(match[0].encode("latin-1")):
            return Damage("Chinese that was read as Latin-1", _around(text, match))
    return None


def damage_in_english(text: str) -> Damage | None:
    """As `damage`; an ideograph beside a Latin letter is damage too: `na飗e` was `naïve` in Latin-1."""
    found = damage(text)
    match = None if found else _LETTER_BESIDE_IDEOGRAPH.search(text)
    return Damage("Latin-1 that was read as GB18030", _around(text, match)) if match else found


def encoding_check(captions: Mapping[str, str], find: Callable[[str], Damage | None] = damage) -> Check:
    """Fails, as a warning, for clips whose captions (by clip) are damaged."""
    damaged = {clip: fault for clip, text in captions.items() if (fault := find(text)) is not None}
    shown = some(f"{clip} ({fault.what}: {fault.place})" for clip, fault in damaged.items())
    return Check(
        "text_encoding",
        not damaged,
        "warning",
        "captions in the encoding in which they were written",
        f"{len(damaged)} captions are damaged: {shown}" if damaged else "no caption is damaged",
        first_clips(damaged),
        "save the list again from the original, in UTF-8" if damaged else "",
    )


def _is_chinese(content: bytes) -> bool:
    try:
        content[: len(content) // 2 * 2].decode("gb2312")
    except UnicodeDecodeError:
        return False
    return True


def _around(text: str, match: re.Match[str]) -> str:
    return repr(text[max(0, match.start() - 8) : match.end() + 8])
