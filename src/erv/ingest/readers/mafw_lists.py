"""MAFW's lists of clips: `03747.mp4 anger`, and four tab-separated columns in GB18030 with captions."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from erv.errors import DataError
from erv.ingest.readers.reading import Check
from erv.ingest.readers.tree import Tree
from erv.labels import LabelSpace

_LINES = re.compile(r"\r\n|\n|\r")  # splitlines() also cuts at characters that captions may hold
_CLIP = r"(\d{5})\.(?i:mp4)"
_PLAIN = re.compile(rf"{_CLIP}[ \t]+(\S+)")
_CHINESE = re.compile(r"[一-鿿]")
_LOST = "\ufffd"


@dataclass(frozen=True, slots=True)
class Line:
    """One clip of a list; `where` is the file and line."""

    clip_id: str
    label: str
    raw: str
    where: str
    caption: str | None = None


@dataclass(frozen=True)
class Lines:
    """A list, and the checks made while reading it."""

    rows: tuple[Line, ...]
    checks: tuple[Check, ...] = ()


def plain(tree: Tree, path: str, space: LabelSpace) -> Lines:
    """Reads a list without captions.

    Raises:
        DataError: it is not ASCII, or a line is not a clip and a label of the space.
    """
    full = tree.full(path)
    try:
        text = tree.read(path).removeprefix(codecs.BOM_UTF8).decode("ascii")
    except UnicodeDecodeError as error:
        raise DataError(f"{full}: byte {error.start} is not ASCII; this is not a no_caption split") from error
    rows = []
    for number, line in enumerate(_LINES.split(text), start=1):
        if not line.strip():
            continue
        match = _PLAIN.fullmatch(line.strip())
        label = canonical(match[2], space) if match else None
        if match is None or label is None:
            raise DataError(
                f"{full}, line {number}: {line.strip()!r} is not `NNNNN.mp4 label` with a label of"
                f" {_names(space)}"
            )
        rows.append(Line(match[1], label, match[2], f"{full}:{number}"))
    return Lines(tuple(rows))


def captioned(tree: Tree, path: str, space: LabelSpace) -> Lines:
    """Reads a list with captions: clip, label, Chinese, English.

    The official encoding is GB18030. A file saved as UTF-8 is read as such and reported, because reading it
    as GB18030 would silently give wrong characters.

    Raises:
        DataError: it is in neither encoding, or a line lacks a column, a clip or a label of the space.
    """
    full = tree.full(path)
    content = tree.read(path)
    text, saved_again = _decoded(content, full)
    rows = []
    for number, line in enumerate(_LINES.split(text), start=1):
        if not line.strip():
            continue
        columns = [column.strip() for column in line.split("\t")]
        if len(columns) != 4:
            raise DataError(
                f"{full}, line {number}: {len(columns)} columns, expected clip, label, Chinese, English with"
                " a tab between them"
            )
        match = re.fullmatch(_CLIP, columns[0], re.ASCII)
        label = canonical(columns[1], space)
        if match is None or label is None:
            raise DataError(
                f"{full}, line {number}: {columns[0]!r}, {columns[1]!r} is not `NNNNN.mp4` and a label of"
                f" {_names(space)}"
            )
        rows.append(Line(match[1], label, columns[1], f"{full}:{number}", columns[3] or None))
    check = Check(
        "caption_encoding",
        not saved_again,
        "warning",
        "captions in GB18030, as published",
        f"{full} is in UTF-8 and was read as such" if saved_again else "captions in GB18030",
        (),
        "somebody has saved the file again; compare it with the official one" if saved_again else "",
    )
    return Lines(tuple(rows), (check,))


def canonical(raw: str, space: LabelSpace) -> str | None:
    """The space's name of a label; the parts of a compound one are sorted by their ids."""
    if raw in space.ids:
        return raw
    parts = re.split(r"[_&+,]", raw)
    if len(parts) < 2 or not all(part in space.ids for part in parts):
        return None
    joined = "_".join(sorted(parts, key=lambda part: space.ids[part]))
    return joined if joined in space.ids else None


def _decoded(content: bytes, path: str) -> tuple[str, bool]:
    """The text, and whether it is in UTF-8.

    Bytes that are valid in both encodings are UTF-8 if that gives Chinese or the character that stands for
    lost ones, or if GB18030 gives no Chinese where the list has it, in the third column.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path}: not GB18030 but UTF-16; fetch the official file again")
    try:
        unicode = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        unicode = None  # the usual case: it is GB18030
    if unicode is not None and (
        unicode.isascii()
        or content.startswith(codecs.BOM_UTF8)
        or _LOST in unicode
        or _CHINESE.search(unicode)
    ):
        return unicode, not unicode.isascii()
    try:
        text = content.decode("gb18030").removeprefix("\ufeff")
        if unicode is not None and not any(
            _CHINESE.search(line.split("\t")[2]) for line in _LINES.split(text) if line.count("\t") == 3
        ):
            return unicode, True
        return text, False
    except UnicodeDecodeError as error:
        if unicode is not None:
            return unicode, True
        raise DataError(
            f"{path}: byte {error.start} is not GB18030, the encoding of the official file; fetch it again"
        ) from error


def _names(space: LabelSpace) -> str:
    shown = ", ".join(space.names[:11])
    rest = len(space.names) - 11
    return f"{space.name}: {shown}" + (f" and {rest} more" if rest > 0 else "")
