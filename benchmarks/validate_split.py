"""How `validate`'s quick look into a clip splits into parts: `benchmarks/validate.py --profile`.

FFmpeg's parts can't be timed from within, so the same work is done with one part more each time, and the
parts are the differences of the medians; one that takes next to nothing can come out below zero. Pictures are
decoded after the sound, from a second opening.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import erv.validate.video_probe as video_probe
from erv.files import sha256_of_file
from erv.media.containers import open_container
from erv.media.header import Header, read_header


def split(paths: Sequence[Path], rounds: int) -> tuple[dict[str, float], float, float]:
    """CPU milliseconds a clip: of each part, of the whole look, and of the file's hash, which comes before.

    Args:
        paths: videos that the quick look is enough for.
        rounds: measurements to take the median of.
    """
    times: dict[str, list[float]] = {}
    for _ in range(rounds):
        spent: dict[str, float] = {}
        for path in paths:
            for name, work in _works(path).items():
                began = time.process_time()
                work()
                spent[name] = spent.get(name, 0.0) + 1000 * (time.process_time() - began)
        for name, value in spent.items():
            times.setdefault(name, []).append(value / len(paths))
    took = {name: median(values) for name, values in times.items()}
    opened = took["header"] + took["open"] + took["open again"]
    parts = {
        "open": opened,
        "demux": took["demux"] - took["open"] + took["demux again"] - took["open again"],
        "decode pictures": took["pictures, not measured"] - took["demux again"],
        "scale pictures, brightness": took["pictures"] - took["pictures, not measured"],
        "decode sound": took["decode sound"] - took["demux"],
        "sums over sound, order of pictures": took["packets"] - took["decode sound"],
        "the rest, in Python": took["all"] - took["header"] - took["packets"] - took["pictures"],
    }
    return parts, took["all"], took["hash"]


def _works(path: Path) -> dict[str, Callable[[], Any]]:
    """What is timed, by name."""
    header = read_header(path)
    packets, _ = video_probe._read_packets(path, header)

    def not_measured() -> None:
        with patch.object(video_probe, "_brightness", lambda _: 255.0):
            assert video_probe._quick_look(path, header, packets) is not None

    return {
        "hash": lambda: sha256_of_file(path),
        "all": lambda: video_probe.probe_video(path),
        "header": lambda: read_header(path),
        "open": lambda: _read(path, header, ()),
        "demux": lambda: _read(path, header, (header.film, header.voice)),
        "decode sound": lambda: _read(path, header, (header.film, header.voice), decode=header.voice),
        "packets": lambda: video_probe._read_packets(path, header),
        # As `erv.media.skipping.decoded` opens it.
        "open again": lambda: _read(path, header, (), skip_frame="all", probesize="32"),
        "demux again": lambda: _read(path, header, (header.film,), skip_frame="all", probesize="32"),
        "pictures, not measured": not_measured,
        "pictures": lambda: video_probe._quick_look(path, header, packets),
    }


def _read(
    path: Path, header: Header, tracks: Sequence[int | None], decode: int | None = None, **options: str
) -> None:
    """Opens a clip, reads the packets of some tracks, and decodes those of one."""
    with open_container(path, header.form, **options) as container:
        streams = [container.streams[track] for track in tracks if track is not None]
        for stream in streams:
            stream.codec_context.thread_count = 1
        for packet in container.demux(*streams) if streams else ():
            if packet.stream_index == decode:
                packet.decode()
