"""Reads CSV and JSONL as people write them, strictly: every fault is one sentence that names the line."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from erv.errors import DataError
from erv.ingest.readers.reading import some

_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")
_OFFICIAL = "use the official file, whose first line has it"


def text_of(content: bytes, path: str) -> str:
    """UTF-8 text, with or without a byte order mark.

    Raises:
        DataError: it is not UTF-8, or holds a NUL byte.
    """
    if content.startswith(b"PK\x03\x04"):
        raise DataError(
            f"{path}: is an Excel workbook or a zip under another name, expected text; save the sheet as"
            " CSV (UTF-8), or unpack it"
        )
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path}: not UTF-8 but UTF-16; save it again in UTF-8")
    if b"\0" in content:
        raise DataError(
            f"{path}: has a NUL byte at {content.index(0)}, so it is damaged or not text; fetch it again, or"
            " save it again in UTF-8"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it again in UTF-8"
        ) from error


def csv_records(content: bytes, path: str) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The header of a CSV file, and its records with the number of their first line.

    Cells are stripped of outer white space; empty lines are skipped.

    Raises:
        DataError: not UTF-8, no header, or (while iterating) a record with the wrong number of cells.
    """
    stream = io.StringIO(text_of(content, path), newline="")
    rows = csv.reader(stream, strict=True)

    def records() -> Iterator[tuple[int, list[str]]]:
        before = rows.line_num
        while True:
            try:
                row = next(rows, None)
            except csv.Error as error:
                raise DataError(f"{path}, line {before + 1}: not CSV ({error})") from error
            if row is None:
                return
            line, before = before + 1, rows.line_num
            if row:
                yield line, [cell.strip() for cell in row]

    everything = records()
    header = next(everything, (0, []))[1]
    if not any(header):
        raise DataError(f"{path}: is empty, expected a first line with the names of the columns")

    def checked() -> Iterator[tuple[int, list[str]]]:
        for line, row in everything:
            if len(row) != len(header):
                raise DataError(
                    f"{path}, line {line}: {len(row)} cells, expected {len(header)} ({', '.join(header)})"
                )
            yield line, row

    return header, checked()


def csv_rows(content: bytes, path: str, columns: Sequence[Sequence[str]]) -> list[tuple[int, list[str]]]:
    """The named columns of a CSV file with a header.

    Args:
        content: of the file, UTF-8, with or without a byte order mark.
        path: for messages.
        columns: for each wanted column, its possible names.

    Returns:
        Number of the first line and the chosen cells of each record.

    Raises:
        DataError: as `csv_records`, or a column is missing.
    """
    header, records = csv_records(content, path)
    chosen = [header.index(column_of(header, names, path)) for names in columns]
    return [(line, [row[index] for index in chosen]) for line, row in records]


def column_of(header: Sequence[str], names: Sequence[str], path: str, remedy: str = _OFFICIAL) -> str:
    """The first of the names that the header has.

    Args:
        header: names of all columns.
        names: possible names of the column.
        path: for messages.
        remedy: what to do if there is no such column.

    Raises:
        DataError: there is no such column, or it appears twice.
    """
    for name in names:
        if header.count(name) > 1:
            raise DataError(f"{path}: column {name!r} appears twice in its first line; rename one of them")
        if name in header:
            return name
    separator = next((sign for sign in ";\t" if len(header) == 1 and sign in header[0]), None)
    if separator is not None:
        raise DataError(
            f"{path}: its cells are separated by {'a tab' if separator != ';' else repr(separator)}; the"
            " separator must be a comma, save it so"
        )
    raise DataError(f"{path}: no column {names[0]!r} in its first line; found {', '.join(header)}; {remedy}")


def jsonl_objects(content: bytes, path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file with their line numbers; empty lines are skipped.

    Raises:
        DataError: not UTF-8, or a line that is not a JSON object or has a key twice.
    """
    for line, text in enumerate(text_of(content, path).split("\n"), start=1):
        if not text.strip():
            continue
        value = _json(text, f"{path}, line {line}")
        if not isinstance(value, dict):
            raise DataError(f"{path}, line {line}: a JSON {type(value).__name__}, expected an object {{..}}")
        yield line, value


def json_document(content: bytes, path: str) -> Any:
    """A JSON document.

    Raises:
        DataError: it is not UTF-8 or not JSON, has a key twice (which would lose a value), or half a
            character.
    """
    return _json(text_of(content, path), path)


def _json(text: str, where: str) -> Any:
    def keys_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        unique = dict(pairs)
        if len(unique) != len(pairs):
            twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
            raise DataError(f"{where}: keys appear twice: {some(twice)}; keep one of each")
        return unique

    try:
        value = json.loads(text, object_pairs_hook=keys_once)
        if _HALF_CHARACTER.search(text):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: holds half a character (the escape \\u{ord(error.object[error.start]):04x} without its"
            " other half); fetch the file again"
        ) from error
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({error})") from error
    except RecursionError as error:
        raise DataError(f"{where}: JSON nested too deeply") from error
