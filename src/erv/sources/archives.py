"""Reads zips as they were delivered, without trusting them.

A zip is never unpacked to the names it gives. Its members are listed after a check of the whole directory
and streamed one by one with their bytes counted, so memory is bounded and no path can escape. Every fault is
reported in one sentence that names the zip and the member.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import threading
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from erv.errors import DataError
from erv.sources.selection import folder_of, is_junk
from erv.sources.zip_directory import MAX_MEMBERS, check_end

# A member larger than this can't be a clip or an annotation file.
MAX_MEMBER_BYTES = 16 << 30
# Highest ratio of unpacked to packed size of a whole zip, checked above FREE_BYTES of unpacked size: media
# hardly shrink, tables shrink ten- to fiftyfold.
MAX_RATIO = 100
FREE_BYTES = 64 << 20
# Largest unpacked size of a file that is read into memory as a whole (xlsx).
MAX_BYTES_IN_MEMORY = 1 << 30
PASSWORD = "ERV_ZIP_PASSWORD"  # noqa: S105 - the name of the variable

_CHUNK = 1 << 20
# bz2 unpacks its whole input at once, to up to 20,000 times the size, so it gets small pieces.
_CHUNK_OF_BZ2 = 1 << 12
_READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
# lzma allocates as much memory as the header asks for.
_UNREADABLE = {9: "deflate64", 14: "lzma", 93: "zstandard", 95: "xz", 97: "wavpack", 98: "ppmd"}
_AES = 99
_ENCRYPTED = 0x1
_LOCAL_HEADER_BYTES = 30
_EMPTY_BYTES = 22
# What zipfile raises for malformed input.
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    IndexError,
    OverflowError,
)
_SPLIT = re.compile(r"\.(z\d\d|zip\.\d{3})$", re.IGNORECASE)


def is_zip(path: str) -> bool:
    """Whether a file is opened as an archive, judged by its suffix alone."""
    return path.lower().endswith(".zip")


def refuse_split(path: str, what: str) -> None:
    """Raises DataError for one part of a zip that was split into several files."""
    if _SPLIT.search(path):
        raise DataError(
            f"{what}: a part of a zip that was split into several files; join them first (`zip -s 0 parts.zip"
            " --out whole.zip`, or 7-Zip) and keep only the joined zip"
        )


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside a zip.

    Attributes:
        path: where unpacking would put it, relative to the source.
        bytes: unpacked size.
        name: its name in the zip.
    """

    path: str
    bytes: int
    name: str


class Archive:
    """An open zip that several threads can read at once.

    Args:
        source: the file, or its content.
        what: its uri, for messages.
        path: of the zip relative to the source; the members' paths derive from it.

    Raises:
        DataError: it is not a zip, or is damaged, encrypted or unsafe to read.
        OSError: the file can't be read.
    """

    def __init__(self, source: Path | bytes, what: str, path: str) -> None:
        self._what, self._path = what, path
        self._lock = threading.Lock()
        # zipfile closes a file it opened itself when its count of readers reaches zero, and that count is not
        # thread-safe. It doesn't close a file object it was given.
        self._stream: BinaryIO = BytesIO(source) if isinstance(source, bytes) else source.open("rb")
        try:
            size = self._stream.seek(0, os.SEEK_END)
            announced = check_end(self._stream, size, what)
            with self._explained():
                self._zip = zipfile.ZipFile(self._stream)
            self._password()
            self._infos = self._checked(size, announced)
        except BaseException:
            self._stream.close()
            raise

    def close(self) -> None:
        """Closes the file."""
        self._zip.close()
        self._stream.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """The files, sorted by path, including those that file managers leave behind."""
        base = _base(self._path, [name for name in self._infos if not is_junk(name)])
        return tuple(
            sorted(
                (Member(f"{base}{name}", info.file_size, name) for name, info in self._infos.items()),
                key=lambda member: member.path,
            )
        )

    @cached_property
    def by_folder(self) -> dict[str, list[str]]:
        """Names of the files directly inside each folder of the zip."""
        folders: dict[str, list[str]] = {}
        for name in sorted(self._infos):
            folders.setdefault(folder_of(name), []).append(name)
        return folders

    def stream(self, name: str) -> Iterator[bytes]:
        """Yields the content of a member in chunks and verifies its checksum at the end.

        Raises:
            DataError: there is no such member, it is damaged, or the password is wrong.
        """
        info = self._infos.get(name)
        if info is None:
            raise DataError(f"{self._what} has no member {name!r}; pin the source again with `erv data pin`")
        chunk_size = _CHUNK_OF_BZ2 if info.compress_type == zipfile.ZIP_BZIP2 else _CHUNK
        count = 0
        with self._explained(name):
            with self._lock:
                member = self._zip.open(info)
            try:
                while chunk := member.read(chunk_size):
                    count += len(chunk)
                    if count > info.file_size:
                        break
                    yield chunk
            finally:
                with self._lock:
                    member.close()
        if count != info.file_size:
            raise self._damaged(name, f"{count} bytes unpacked, its header says {info.file_size}")

    def copy(self, name: str, target: Path, on_bytes: Callable[[int], None]) -> None:
        """Writes the content of a member to a file; raises as `stream`, and OSError for the target."""
        with target.open("wb") as out:
            for chunk in self.stream(name):
                out.write(chunk)
                on_bytes(len(chunk))

    def _password(self) -> None:
        password = os.environ.get(PASSWORD)
        if password:
            self._zip.setpassword(password.encode())

    def _checked(self, size: int, announced: int | None) -> dict[str, zipfile.ZipInfo]:
        """The directory by name, without folders, after every check that needs no unpacking."""
        infos = self._zip.infolist()
        if len(infos) > MAX_MEMBERS:
            raise DataError(f"{self._what}: has {len(infos):,} members, more than {MAX_MEMBERS:,}; split it")
        # Old packers wrap around at 65,535.
        if (announced is not None and (len(infos) - announced) % 0x10000) or (
            not infos and size > _EMPTY_BYTES
        ):
            raise self._damaged(None, f"it lists {len(infos)} members and announces {announced}")
        for info in infos:
            fault = _fault(info)
            if fault:
                raise DataError(f"{self._what}: member {info.orig_filename!r} {fault}")
        files = [info for info in infos if not info.is_dir()]
        names = Counter(info.filename for info in files)
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise DataError(f"{self._what}: member {twice[0]!r} occurs twice; create the zip again")
        self._check_encryption(files)
        self._check_size(files, size)
        self._check_overlap(infos)
        return {info.filename: info for info in files}

    def _check_encryption(self, files: Sequence[zipfile.ZipInfo]) -> None:
        aes = [info.filename for info in files if info.compress_type == _AES]
        if aes:
            raise DataError(
                f"{self._what}: {len(aes):,} members, {aes[0]!r} first, are encrypted with AES; unpack it"
                f" with 7-Zip and the password you were given ({PASSWORD} opens ZipCrypto only)"
            )
        encrypted = [info.filename for info in files if info.flag_bits & _ENCRYPTED]
        if encrypted and not os.environ.get(PASSWORD):
            raise DataError(
                f"{self._what}: {len(encrypted):,} members, {encrypted[0]!r} first, are encrypted; unpack it"
                f" with the password you were given, or set {PASSWORD} (slow for gigabytes)"
            )

    def _check_size(self, files: Sequence[zipfile.ZipInfo], size: int) -> None:
        large = [info for info in files if info.file_size > MAX_MEMBER_BYTES]
        if large:
            raise DataError(
                f"{self._what}: member {large[0].filename!r} unpacks to {large[0].file_size / 1e9:.1f} GB,"
                f" more than {MAX_MEMBER_BYTES / 1e9:.1f} GB; if you trust it, unpack it yourself"
            )
        total = sum(info.file_size for info in files)
        if total > max(FREE_BYTES, MAX_RATIO * size):
            raise DataError(
                f"{self._what}: unpacks to {total / 1e6:,.0f} MB, more than {MAX_RATIO} times its size, as a"
                " zip bomb does; if you trust it, unpack it yourself"
            )

    def _check_overlap(self, infos: Sequence[zipfile.ZipInfo]) -> None:
        """Refuses members that share bytes: no packer writes them, and they can unpack to a huge size."""
        ordered = sorted(infos, key=lambda info: info.header_offset)
        starts = [*(info.header_offset for info in ordered), self._zip.start_dir]
        for info, end in zip(ordered, starts[1:], strict=True):
            name = len(info.orig_filename)  # at least as many bytes
            if info.header_offset < 0 or (
                info.header_offset + _LOCAL_HEADER_BYTES + name + info.compress_size > end
            ):
                raise DataError(
                    f"{self._what}: member {info.filename!r} overlaps the data after it, as in a zip bomb"
                    " or a damaged zip; fetch it again from where you got it"
                )

    def _damaged(self, name: str | None, why: object) -> DataError:
        where = self._what if name is None else f"{self._what}: member {name!r}"
        kind = "not a readable zip" if name is None else "can't be unpacked"
        words = " ".join(str(why).split()) or type(why).__name__
        return DataError(f"{where}: {kind} ({words}); it may be cut short or damaged, fetch it again")

    @contextmanager
    def _explained(self, name: str | None = None) -> Iterator[None]:
        """Turns whatever zipfile raises for a broken zip into one sentence."""
        try:
            yield
        except NotImplementedError as error:
            raise DataError(
                f"{self._what}: {'' if name is None else f'member {name!r}: '}{error}; unpack it yourself"
            ) from error
        except RuntimeError as error:
            if "password" not in str(error).lower():
                raise
            raise DataError(
                f"{self._what}: member {name!r} does not open with {PASSWORD}; set it to the password you"
                " were given"
            ) from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise self._damaged(name, error) from error
        except _BROKEN as error:
            hint = f", or {PASSWORD} is wrong" if name and self._infos[name].flag_bits & _ENCRYPTED else ""
            raise self._damaged(name, f"{error}{hint}") from error


def check_zip_bytes(content: bytes, what: str) -> None:
    """Checks a zip that another library will unpack in memory (an xlsx) for bombs, damage and odd names.

    Args:
        content: the whole file.
        what: its uri, for messages.

    Raises:
        DataError: it isn't a zip, is damaged, or unpacks to an implausible size.
    """
    with Archive(content, what, what) as archive:
        total = sum(member.bytes for member in archive.members)
        if total > MAX_BYTES_IN_MEMORY:
            raise DataError(
                f"{what}: unpacks to {total / 1e6:,.0f} MB, more than {MAX_BYTES_IN_MEMORY / 1e6:,.0f} MB;"
                " is it the annotation file?"
            )
        for member in archive.members:
            for _chunk in archive.stream(member.name):
                pass


def _fault(info: zipfile.ZipInfo) -> str | None:
    """Why a member is unsafe to read, apart from sizes."""
    name = info.orig_filename
    if not name:
        return "has no name; create the zip again"
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        return "has a name with control characters; create the zip again"
    plain = name.removesuffix("/") if info.is_dir() else name
    if "\\" in name or re.match(r"[A-Za-z]:", name) or not {"", ".", ".."}.isdisjoint(plain.split("/")):
        return "has a name that leads out of the zip or is not a plain path; create the zip again"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "is a symbolic link; create the zip again with the file itself"
    if not info.is_dir() and info.compress_type not in (*_READABLE, _AES):
        kind = _UNREADABLE.get(info.compress_type, f"method {info.compress_type}")
        return f"uses a compression that erv doesn't read ({kind}); unpack it, or zip it with deflate"
    return None


def _base(path: str, names: Sequence[str]) -> str:
    """The path prefix of unpacked members: the zip's folder, or a folder named after the zip."""
    tops = {name.partition("/")[0] if "/" in name else None for name in names}
    if len(tops) == 1 and None not in tops:
        folder = folder_of(path)
        return f"{folder}/" if folder else ""
    return f"{path[: -len('.zip')]}/"
