"""Zips for tests: valid ones, and ones that no tool would write."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping


def zip_of(members: Mapping[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip with members by name."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, kind)
    return out.getvalue()


def patched(content: bytes, local: Mapping[int, bytes], central: Mapping[int, bytes] | None = None) -> bytes:
    """Overwrites fields, by offset, of the first member's local header and of its entry in the directory."""
    data = bytearray(content)
    for start, fields in ((data.find(b"PK\3\4"), local), (data.find(b"PK\1\2"), central or {})):
        for offset, value in fields.items():
            data[start + offset : start + offset + len(value)] = value
    return bytes(data)


def encrypted(name: str, content: bytes, password: bytes) -> bytes:
    """A zip with one member in ZipCrypto, as `zip -P` makes it."""
    keys = [0x12345678, 0x23456789, 0x34567890]

    def crc(value: int, byte: int) -> int:
        return (~zlib.crc32(bytes([byte]), ~value & 0xFFFFFFFF)) & 0xFFFFFFFF

    def update(byte: int) -> None:
        keys[0] = crc(keys[0], byte)
        keys[1] = ((keys[1] + (keys[0] & 0xFF)) * 134775813 + 1) & 0xFFFFFFFF
        keys[2] = crc(keys[2], keys[1] >> 24)

    for byte in password:
        update(byte)
    checksum = zlib.crc32(content)
    cipher = bytearray()
    for byte in bytes(11) + bytes([checksum >> 24]) + content:
        mixed = keys[2] | 2
        cipher.append(byte ^ (((mixed * (mixed ^ 1)) >> 8) & 0xFF))
        update(byte)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), bytes(cipher))
    fields = struct.pack("<LLL", checksum, len(cipher), len(content))
    return patched(out.getvalue(), {6: b"\1\0", 14: fields}, {8: b"\1\0", 16: fields})


def overlapping(content: bytes) -> bytes:
    """A zip with a directory that lists the same bytes under two names."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(zipfile.ZipInfo("one.mp4"), content)
        archive.writestr(zipfile.ZipInfo("two.mp4"), b"")
        first, second = archive.filelist
        for field in ("header_offset", "CRC", "compress_size", "file_size"):
            setattr(second, field, getattr(first, field))
    return out.getvalue()
