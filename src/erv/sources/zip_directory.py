"""The end record of a zip, checked before `zipfile` reads the directory it announces into memory."""

from __future__ import annotations

import struct
from typing import BinaryIO

from erv.errors import DataError

# A data set of 16,000 clips as images has about 1.5 million files.
MAX_MEMBERS = 3_000_000
MAX_DIRECTORY_BYTES = 400 << 20

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_MAX_COMMENT = 1 << 16


def check_end(stream: BinaryIO, size: int, what: str) -> int | None:
    """Refuses a zip that is one part of several, or whose directory is too large to read.

    A file without an end record passes: `zipfile` reports what is wrong with it.

    Args:
        stream: the whole file.
        size: of the file in bytes.
        what: its uri, for messages.

    Returns:
        The number of members it announces; None without an end record.

    Raises:
        DataError: it is refused.
    """
    start = max(0, size - _END.size - _MAX_COMMENT)
    stream.seek(start)
    tail = stream.read(size - start)
    at = tail.rfind(b"PK\5\6")
    if at < 0 or at + _END.size > len(tail):
        return None
    _, disk, first_disk, _, members, length, _, _ = _END.unpack_from(tail, at)
    locator = at - _LOCATOR.size
    if locator >= 0 and tail[locator : locator + 4] == b"PK\6\7":
        _, first_disk, offset, disks = _LOCATOR.unpack_from(tail, locator)
        disk = max(0, disks - 1)
        stream.seek(min(offset, size))
        record = stream.read(_END_64.size)
        if len(record) == _END_64.size and record[:4] == b"PK\6\6":
            members, length = _END_64.unpack(record)[7:9]
    if disk or first_disk:
        raise DataError(
            f"{what}: the last part of a zip that was split into several files; join them first (`zip -s 0"
            " parts.zip --out whole.zip`, or 7-Zip) and keep only the joined zip"
        )
    if members > MAX_MEMBERS or length > MAX_DIRECTORY_BYTES:
        raise DataError(
            f"{what}: lists {members:,} members in {length / 1e6:,.0f} MB, more than {MAX_MEMBERS:,} members"
            f" or {MAX_DIRECTORY_BYTES / 1e6:,.0f} MB; split it into several zips"
        )
    return int(members)
