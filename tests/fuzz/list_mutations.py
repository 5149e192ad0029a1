"""Seeded mutations of lists, tables, JSON and sheets.

A mutation of text is one of two kinds. After one in `LINES` the rows of all lines that it left alone must be
the same. The others (`WHOLE`) say nothing else than before, or something wrong for all clips (every label
shifted, say): all rows must be the same, or the list must be refused.
"""

from __future__ import annotations

import codecs
import io
import json
import re
import unicodedata
from collections.abc import Callable

import numpy as np
from openpyxl import load_workbook

Text = Callable[[bytes, np.random.Generator], bytes]

_ODD: tuple[bytes, ...] = (
    b"\0",
    b'"',
    b",",
    b"\t",
    b"\r",
    b"\n",
    b"\xff",
    b"\xc3\xa9",
    b"\xef\xbb\xbf",
    b"\xe2\x80\x8b",
    b"<answer>",
    b"</think>",
    b"{",
    b"]",
    b"\\",
    b"\\ud83d",
    b"9" * 5000,
    b"[" * 3000,
    "²".encode(),
    "١".encode(),
)
_JSON_VALUES: tuple[object, ...] = (
    *(None, True, 0, -1, 1.5, 10**400, "", " ", "x", "anger", "²", "\ud83d"),
    *([], {}, [1], {"value": 3}, "<answer>sad</answer>"),
)


def flip_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """A few random bytes become others."""
    values = np.frombuffer(content, np.uint8).copy()
    places = rng.integers(0, len(values), int(rng.integers(1, 8)))
    values[places] = rng.integers(0, 256, len(places))
    return values.tobytes()


def truncate(content: bytes, rng: np.random.Generator) -> bytes:
    """The end is missing."""
    return content[: int(rng.integers(len(content)))]


def insert(content: bytes, rng: np.random.Generator) -> bytes:
    """Something that has a meaning to a parser, anywhere."""
    at = int(rng.integers(len(content) + 1))
    return content[:at] + _ODD[int(rng.integers(len(_ODD)))] + content[at:]


def drop_line(content: bytes, rng: np.random.Generator) -> bytes:
    """A line is gone."""
    lines = content.split(b"\n")
    del lines[int(rng.integers(len(lines)))]
    return b"\n".join(lines)


def repeat_line(content: bytes, rng: np.random.Generator) -> bytes:
    """A line comes twice."""
    lines = content.split(b"\n")
    lines.insert(int(rng.integers(len(lines))), lines[int(rng.integers(len(lines)))])
    return b"\n".join(lines)


def splice_lines(content: bytes, rng: np.random.Generator) -> bytes:
    """The beginning of a line and the end of another."""
    lines = content.split(b"\n")
    one, other = (int(index) for index in rng.integers(len(lines), size=2))
    lines[one] = lines[one][: len(lines[one]) // 2] + lines[other][len(lines[other]) // 2 :]
    return b"\n".join(lines)


def change_value(content: bytes, rng: np.random.Generator) -> bytes:
    """A value of a line of JSON is of another kind; in other lists, a cell is empty."""
    lines = content.split(b"\n")
    at = int(rng.integers(len(lines)))
    text = lines[at].decode("utf-8", errors="replace").rstrip(",")
    try:
        item = json.loads(text)
        inner = item
        while isinstance(inner, (dict, list)) and inner:
            keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
            key = keys[int(rng.integers(len(keys)))]
            if not isinstance(inner[key], (dict, list)) or rng.random() < 0.3:
                inner[key] = _JSON_VALUES[int(rng.integers(len(_JSON_VALUES)))]
                break
            inner = inner[key]
        lines[at] = json.dumps(item).encode()
        if not content.startswith(b"{") and at < len(lines) - 3:
            lines[at] += b","
    except ValueError:
        cells = re.split(rb"([,\t ])", lines[at])
        cells[int(rng.integers(len(cells)))] = b""
        lines[at] = b"".join(cells)
    return b"\n".join(lines)


def shuffle_lines(content: bytes, rng: np.random.Generator) -> bytes:
    """Two lines change places: in a list the order means nothing."""
    return repeat_line(drop_line(content, rng), rng) if b'"' in content else _swapped(content, rng)


def _swapped(content: bytes, rng: np.random.Generator) -> bytes:
    lines = content.split(b"\n")
    one, other = (int(index) for index in rng.integers(1, max(2, len(lines) - 1), size=2))
    lines[one], lines[other] = lines[other], lines[one]
    return b"\n".join(lines)


def byte_order_mark(content: bytes, rng: np.random.Generator) -> bytes:
    """A mark at the beginning, once or twice."""
    return codecs.BOM_UTF8 * int(rng.integers(1, 3)) + content


def line_ends(content: bytes, rng: np.random.Generator) -> bytes:
    """Those of another system."""
    ends = (b"\r\n", b"\r", b"\n\n", b"\r\r\n", b" \n")
    return content.replace(b"\r\n", b"\n").replace(b"\n", ends[int(rng.integers(len(ends)))])


def other_encoding(content: bytes, rng: np.random.Generator) -> bytes:
    """The text as another program saves it, or as one reads it wrongly and saves it again."""
    text = _text(content)
    encodings = ("utf-16", "utf-16-le", "utf-8", "utf-8-sig", "gb18030", "cp1252", "mac_roman")
    if rng.random() < 0.5:
        return text.encode(encodings[int(rng.integers(len(encodings)))], errors="replace")
    wrong = ("latin-1", "cp1252", "gb18030", "ascii")[int(rng.integers(4))]
    return content.decode(wrong, errors="replace").encode()


def other_unicode(content: bytes, rng: np.random.Generator) -> bytes:
    """Composed or decomposed accents."""
    return unicodedata.normalize(("NFC", "NFD")[int(rng.integers(2))], _text(content)).encode()


def suffix_in_capitals(content: bytes, rng: np.random.Generator) -> bytes:
    """`.MP4`."""
    return content.replace(b".mp4", (b".MP4", b".Mp4")[int(rng.integers(2))])


def words_in_capitals(content: bytes, rng: np.random.Generator) -> bytes:
    """Labels and names of columns in another case."""
    words = (b"anger", b"fear", b"sadness", b"label", b"clip", b"names", b"emotions", b"video_name")
    word = words[int(rng.integers(len(words)))]
    return content.replace(word, word.upper())


def other_separator(content: bytes, rng: np.random.Generator) -> bytes:
    """Semicolons, as spreadsheets write them in some countries."""
    return content.replace(b",", (b";", b"\t", b" ")[int(rng.integers(3))])


def swap_columns(content: bytes, rng: np.random.Generator) -> bytes:
    """The first two cells of all lines but the header change places."""
    head, *lines = content.split(b"\n")
    pattern = rb"^([^,\t ]*)([,\t ])([^,\t \r]*)"
    return b"\n".join([head, *(re.sub(pattern, rb"\3\2\1", line) for line in lines)])


def count_from_zero(content: bytes, rng: np.random.Generator) -> bytes:
    """Ids one lower; clips of the first class are gone with it, in half of the cases."""
    keep_first = rng.random() < 0.5
    lines = []
    for line in content.split(b"\n"):
        match = re.fullmatch(rb"([^,]*,)(\d+)((?:,\d+)?\r?)", line)
        if match and match[2] == b"1" and not keep_first:
            continue
        lines.append(match[1] + b"%d" % (int(match[2]) - 1) + match[3] if match else line)
    return b"\n".join(lines)


def count_from_two(content: bytes, rng: np.random.Generator) -> bytes:
    """Ids one higher."""
    pattern = rb"(?m)^([^,\n]*,)(\d+)(?=(?:,\d+)?\r?$)"
    return re.sub(pattern, lambda match: match[1] + b"%d" % (int(match[2]) + 1), content)


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("gb18030")


LINES: dict[str, Text] = {
    mutation.__name__: mutation
    for mutation in (
        flip_bytes,
        truncate,
        insert,
        drop_line,
        repeat_line,
        splice_lines,
        change_value,
        shuffle_lines,
    )
}
WHOLE: dict[str, Text] = {
    mutation.__name__: mutation
    for mutation in (
        byte_order_mark,
        line_ends,
        other_encoding,
        other_unicode,
        suffix_in_capitals,
        words_in_capitals,
        swap_columns,
    )
}
# Only in CSV: elsewhere it changes captions.
OF_CSV: dict[str, Text] = {other_separator.__name__: other_separator}
# Only where labels are ids: elsewhere they change clips.
OF_IDS: dict[str, Text] = {mutation.__name__: mutation for mutation in (count_from_zero, count_from_two)}
SHEETS = ("cell", "label", "row_gone", "row_twice", "column_gone", "columns_swapped", "bytes", "worksheet")


def mutate_sheet(content: bytes, kind: str, rng: np.random.Generator) -> tuple[bytes, set[str], bool]:
    """A workbook, changed.

    Returns:
        The new content; the clip ids of changed rows; and whether a label of a clip is another one now.
    """
    if kind == "bytes":
        return (flip_bytes if rng.random() < 0.7 else truncate)(content, rng), set(), False
    book = load_workbook(io.BytesIO(content))
    page = book.active
    row, column = int(rng.integers(1, page.max_row + 1)), int(rng.integers(1, page.max_column + 1))
    changed = {_digits(page.cell(row, 1).value), _digits(page.cell(row, max(1, page.max_column - 1)).value)}
    other = False
    if kind == "cell":
        values = (
            None,
            "",
            " ",
            0,
            1,
            1.0,
            "1.0",
            99,
            -3,
            1.5,
            "x",
            "00019.mp4",
            "１",
            "²",
            True,
            "=1+1",
            "Ã©",
        )
        page.cell(row, column).value = values[int(rng.integers(len(values)))]
        changed.add(_digits(page.cell(row, 1).value))
    elif kind == "label":
        row = int(rng.integers(2, page.max_row + 1))
        cell = page.cell(row, page.max_column)
        if isinstance(cell.value, int) and "label" in str(page.cell(1, page.max_column).value) and cell.value:
            cell.value = cell.value % 7 + 1
            other = True
    elif kind == "row_gone":
        page.delete_rows(row)
    elif kind == "row_twice":
        page.append([cell.value for cell in page[row]])
    elif kind == "column_gone":
        page.delete_cols(column)
        changed |= {_digits(cell.value) for line in page.iter_rows() for cell in line}
    elif kind == "columns_swapped":
        second = int(rng.integers(1, page.max_column + 1))
        for line in page.iter_rows():
            one, two = line[column - 1], line[second - 1]
            one.value, two.value = two.value, one.value
        changed |= {_digits(cell.value) for line in page.iter_rows() for cell in line}
    else:
        copy = book.copy_worksheet(page)
        if page.max_row > 2 and isinstance(copy.cell(2, copy.max_column).value, int):
            other = "label" in str(copy.cell(1, copy.max_column).value) and bool(
                copy.cell(2, copy.max_column).value
            )
            copy.cell(2, copy.max_column).value = copy.cell(2, copy.max_column).value % 7 + 1
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue(), changed, other


def _digits(value: object) -> str:
    """What a cell names, as a clip id of either data set."""
    return re.sub(r"\.mp4$", "", str(value))
