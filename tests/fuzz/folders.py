"""Seeded mutations of frame folders."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.clips import movie

KINDS = ("images_flipped", "images_truncated", "images_oversize", "images_of_noise", "images_misnamed")
_FORMATS = ("jpeg", "png", "bmp")


def write_folder(folder: Path, number: int, seed: int) -> str:
    """Writes a folder of twelve images of which some are broken; returns the kind of mutation."""
    rng = np.random.default_rng([seed, number])
    kind = KINDS[number % len(KINDS)]
    broken = set(rng.choice(12, int(rng.integers(1, 6)), replace=False).tolist())
    write_images(folder, rng, number, kind, broken)
    return kind


def write_images(
    folder: Path, rng: np.random.Generator, number: int = 0, kind: str = "", broken: Collection[int] = ()
) -> None:
    """Writes a folder of twelve images, those at some places broken in one way."""
    folder.mkdir(parents=True)
    for index, pixels in enumerate(movie(12, 48, 80)):
        form = _FORMATS[int(rng.integers(len(_FORMATS)))]
        content = _image(pixels, form)
        name = f"{number}_{index:03d}.{form}"
        if index in broken:
            name, content = _break(kind, name, content, rng)
        (folder / name.replace(".jpeg", ".jpg")).write_bytes(content)


def _image(pixels: np.ndarray, form: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format=form)
    return stream.getvalue()


def _break(kind: str, name: str, content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    if kind == "images_flipped":
        values = np.frombuffer(content, np.uint8).copy()
        places = rng.integers(0, len(values), int(rng.integers(1, 60)))
        values[places] = rng.integers(0, 256, len(places))
        return name, values.tobytes()
    if kind == "images_truncated":
        return name, content[: int(rng.integers(len(content)))]
    if kind == "images_oversize":
        return name, _oversize(content, rng)
    if kind == "images_of_noise":
        return name, content[: int(rng.integers(0, 40))] + rng.bytes(int(rng.integers(1, 3000)))
    ending = name.rpartition(".")[2]
    odd = (f"cover.{ending}", f"x_001.{ending}", f"{'9' * 300}"[:200] + f".{ending}", f"-5.{ending}")
    return odd[int(rng.integers(len(odd)))], content


def _oversize(content: bytes, rng: np.random.Generator) -> bytes:
    """The header claims another width and height than there are pixels for."""
    width, height = (int(value) for value in rng.choice([0, 1, 81, 9000, 30_000, 65_535, 2**31 - 1], 2))
    result = bytearray(content)
    if content[:4] == b"\x89PNG":
        result[16:24] = struct.pack(">II", width, height)
        result[29:33] = struct.pack(">I", zlib.crc32(bytes(result[12:29])))
    elif content[:2] == b"BM":
        result[18:26] = struct.pack("<II", width, height)
    else:
        at = content.index(b"\xff\xc0") + 5  # the frame header of a baseline JPEG
        result[at : at + 4] = struct.pack(">HH", height & 0xFFFF, width & 0xFFFF)
    return bytes(result)
