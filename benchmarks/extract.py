"""Clips per second of `extract` at 224x224 against a plain loop of decord, PIL and numpy over the same clips.

    python benchmarks/extract.py                  # make bench-extract
    python benchmarks/extract.py --clips 100 --rounds 2 --geometry pad
    python benchmarks/extract.py --clips 12 --one-core    # a minute; holds on a machine that others use
    python benchmarks/extract.py --scratch /dev/shm    # if the disk is slower than two decoders

The clips are H.264 and AAC, 640x360 at 25 frames a second, 3 s: a camera that moves over photographs, with
sensor noise and a voice-like tone. All ways take the same 8 frames, resize them with a bicubic filter and
read the whole sound at 16 kHz. They run in turns, each in its own process, so that the ratios hold on a busy
machine too. Ratios are taken within a round; their median and range are reported.

- plain: one process, one decoding thread; keeps nothing
- plain_save: also saves frames and sound with `np.save`
- plain_2: two plain loops at once, each over half of the clips: what two cores of this machine can do
- extract_1, extract_2: the stage's own function with 1 and 2 workers, from verified files to written shards;
  `extract.resize` is pillow, whose frames equal those of decoding everything, bit for bit
- extract_1_uint8, extract_2_uint8: the same with `extract.resize: uint8`, at most 1 level off

`extract` is timed from the call to the last file, including the start of its workers. A plain loop is timed
twice: the loop alone, and with the start of its process and its imports.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `tests`

from benchmarks.workspace import positive

RESULTS = Path(__file__).with_suffix(".json")
WIDTH, HEIGHT, FPS, SECONDS = 640, 360, 25, 3
FRAMES, SIZE, SAMPLE_RATE = 8, 224, 16_000
DISTINCT = 12
EXTRACTS = ("extract_1", "extract_2", "extract_1_uint8", "extract_2_uint8")
WAYS = ("plain", "plain_save", "plain_2", *EXTRACTS)
LIBRARIES = ("decord", "av", "pillow", "numpy", "pyarrow")


def make_clip(number: int) -> bytes:
    """A clip of a moving camera, different for each number."""
    import io
    from fractions import Fraction

    import av
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(number)
    photo = Image.fromarray(load_sample_images().images[number % 2])
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=FPS, options={"crf": "23", "preset": "veryfast"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound = container.add_stream("aac", rate=44_100, layout="stereo")
        for index in range(FPS * SECONDS):
            at = index / (FPS * SECONDS)
            width = photo.width * (0.5 + 0.2 * np.sin(3 * at + number))
            height = width * HEIGHT / WIDTH
            x = (photo.width - width) * (0.5 + 0.4 * np.sin(2 * at + number))
            y = (photo.height - height) * (0.5 + 0.4 * np.cos(3 * at + number))
            view = photo.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC, (x, y, x + width, y + height))
            noisy = np.asarray(view) + rng.normal(0, 2, (HEIGHT, WIDTH, 1))
            pixels = np.clip(noisy, 0, 255).astype(np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode(None))
        times = np.arange(44_100 * SECONDS) / 44_100
        wave = np.sin(2 * np.pi * (150 + 10 * number) * times) * (0.5 + 0.5 * np.sin(9 * times))
        samples = (8000 * wave + rng.normal(0, 300, times.size)).astype(np.int16)
        chunk = av.AudioFrame.from_ndarray(np.repeat(samples, 2)[None], format="s16", layout="stereo")
        chunk.sample_rate, chunk.pts, chunk.time_base = 44_100, 0, Fraction(1, 44_100)
        container.mux(sound.encode(chunk))
        container.mux(sound.encode(None))
    return buffer.getvalue()


def plain_loop(folder: Path, geometry: str, out: Path | None, part: slice = slice(None)) -> float:
    """The loop that anyone who knows decord, PIL and numpy would write; returns its seconds."""
    import decord
    import numpy as np
    from PIL import Image

    began = time.perf_counter()
    for path in sorted(folder.glob("*.mp4"))[part]:
        video = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
        middles = (len(video) - 1) / FRAMES * (np.arange(FRAMES) + 0.5) + 1e-6
        batch = video.get_batch(np.round(middles).astype(int).tolist()).asnumpy()
        squares = []
        for pixels in batch:
            image = Image.fromarray(pixels)
            if geometry == "pad":
                side = max(image.size)
                canvas = Image.new("RGB", (side, side), (127, 127, 127))
                canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
                image = canvas
            squares.append(np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)))
        frames = np.stack(squares)
        reader = decord.AudioReader(str(path), ctx=decord.cpu(0), sample_rate=SAMPLE_RATE, mono=True)
        sound = (np.clip(reader[:].asnumpy()[0], -1, 1) * 32767).astype(np.int16)
        if out is not None:
            np.save(out / f"{path.stem}.frames.npy", frames)
            np.save(out / f"{path.stem}.sound.npy", sound)
    return time.perf_counter() - began


def extract_settings(geometry: str, resize: str) -> Any:
    """The settings of the repository at 224x224."""
    from erv.settings import load_settings

    changes = {"size": SIZE, "frames": FRAMES, "geometry": geometry, "resize": resize}
    return load_settings(Path(__file__).parents[1] / "params.yaml").extract.model_copy(update=changes)


def run_way(way: str, folder: Path, geometry: str) -> dict[str, float]:
    """Runs one way in this process.

    Returns:
        Seconds; CPU seconds of this process, including imports and workers; its peak memory in MB, without
        workers.
    """
    import resource

    with tempfile.TemporaryDirectory(prefix="erv-bench-") as scratch:
        out = Path(scratch)
        if way == "plain_2":
            with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
                halves = [
                    pool.submit(plain_loop, folder, geometry, None, slice(start, None, 2)) for start in (0, 1)
                ]
                seconds = max(half.result() for half in halves)
        elif way.startswith("plain"):
            seconds = plain_loop(folder, geometry, out if way == "plain_save" else None)
        else:
            from erv.extract.extract import extract
            from tests.support.clips import pinned

            rows, lock = pinned(folder)
            workers, _, resize = way.removeprefix("extract_").partition("_")
            settings = extract_settings(geometry, resize or "pillow")
            shards, quarantine = out / "shards", out / "quarantine.parquet"
            began = time.perf_counter()
            result = extract(
                rows, lock, None, settings, shards, quarantine, workers=int(workers), state_root=out / "state"
            )
            seconds = time.perf_counter() - began
            if result.extracted != len(rows):
                raise SystemExit(f"{way}: {result.reasons}")
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "seconds": seconds,
        "cpu_seconds": sum(usage.ru_utime + usage.ru_stime for usage in used),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    }


def measure(way: str, folder: Path, geometry: str) -> dict[str, float]:
    """Runs one way in its own process; adds the seconds of the whole process."""
    command = [sys.executable, __file__, "--way", way, "--folder", str(folder), "--geometry", geometry]
    began = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    whole = time.perf_counter() - began
    return {**json.loads(done.stdout.splitlines()[-1]), "whole_seconds": whole}


def components(paths: Sequence[Path], geometry: Any) -> dict[str, float]:
    """Milliseconds per clip in each part of `extract`, measured one by one in this process.

    A part with a comma in its name is another way to do the one before the comma.
    """
    import hashlib
    from contextlib import ExitStack

    import decord
    import numpy as np
    import pyarrow.parquet as pq

    from erv.media import decode as media
    from erv.media.answers import pack
    from erv.media.header import read_header
    from erv.media.resizing import load_torch
    from erv.media.seeking import survey
    from erv.media.sequential import upright
    from erv.media.skipping import taken_pictures
    from erv.media.sound import read_sound
    from erv.shards import Clip, ShardFile

    spent: dict[str, float] = {}

    def timed(name: str, function: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        value = function()
        spent[name] = spent.get(name, 0.0) + time.perf_counter() - began
        return value

    def pixels_of(path: Path) -> list[Any]:
        video = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
        return list(video.get_batch(media.frame_indices(len(video), FRAMES).tolist()).asnumpy())

    def chosen_of(path: Path, header: Any, found: Any) -> list[Any]:
        wanted = media.frame_indices(found.packets, FRAMES).tolist()
        taken = taken_pictures(path, header, found.order, wanted, (WIDTH, HEIGHT), upright)
        if taken is None:
            raise SystemExit(f"{path}: pictures can't be skipped")
        return [taken[index] for index in wanted]

    ours, theirs = multiprocessing.Pipe()

    def transfer(frames: Any, sound: Any) -> None:
        # As a worker does it, in pieces that fit into the pipe, since both ends are in this process.
        for content in pack("result", media.Decoded(frames, sound)).arrays:
            view = memoryview(content).cast("B")
            for start in range(0, len(view), 65_536):
                ours.send_bytes(view[start : start + 65_536])
                theirs.recv_bytes()

    with tempfile.TemporaryDirectory(prefix="erv-bench-") as scratch, ExitStack() as stack:
        with ShardFile(Path(scratch) / "warm.parquet"):  # what is loaded once doesn't count
            read_header(paths[0])
        load_torch()
        shard = stack.enter_context(ShardFile(Path(scratch) / "s.parquet"))
        clips = []
        for path in paths:
            timed("verify sha256", lambda p=path: hashlib.sha256(p.read_bytes()).hexdigest())
            header = timed("read header", lambda p=path: read_header(p))
            found = timed("read packets", lambda p=path, h=header: survey(p, h))
            pictures = timed("decode frames", lambda p=path, h=header, f=found: chosen_of(p, h, f))
            everything = timed("decode frames, all with decord", lambda p=path: pixels_of(p))
            if not np.array_equal(pictures, everything):
                raise SystemExit(f"{path}: frames differ from those of decord")
            squares = timed("resize", lambda p=pictures: media.to_square(p, SIZE, geometry))
            timed("resize, uint8", lambda p=pictures: media.to_square(p, SIZE, geometry, "uint8"))
            sound = timed("sound", lambda p=path, h=header: read_sound(p, h.form, h.voice, SAMPLE_RATE, 0.0))
            frames = squares
            timed("transfer", lambda f=frames, s=sound: transfer(f, s))
            clips.append(Clip(path.stem, frames, sound, SAMPLE_RATE))
        for clip in clips:
            timed("compress and write", lambda c=clip: shard.add(c))
        timed("compress and write", stack.close)
        timed("verify sha256", lambda: hashlib.sha256((Path(scratch) / "s.parquet").read_bytes()))
        assert pq.ParquetFile(Path(scratch) / "s.parquet").metadata.num_rows == len(paths)
    return {name: 1000 * seconds / len(paths) for name, seconds in spent.items()}


def one_core(folder: Path, geometry: str, clips: int, rounds: int) -> dict[str, dict[str, float]]:
    """CPU milliseconds a clip in this process, in turns: the plain loop, and what `extract` does to a clip.

    That is to verify its digest, to decode it and to write it to a shard; not to send it from worker to
    parent. It holds on a machine that others use, too.
    """
    import hashlib

    from erv.media.decode import DecodeRule, decode, load_decoders_and_torch
    from erv.shards import Clip, ShardFile

    load_decoders_and_torch()
    paths = sorted(folder.glob("*.mp4"))[:clips]

    def extracted(resize: Any, scratch: Path) -> None:
        rule = DecodeRule(FRAMES, SIZE, geometry, SAMPLE_RATE, resize=resize)  # type: ignore[arg-type]
        with ShardFile(scratch / f"{resize}.parquet") as shard:
            for path in paths:
                hashlib.sha256(path.read_bytes()).hexdigest()
                found = decode(path, rule)
                assert found.audio is not None
                shard.add(Clip(path.stem, found.frames, found.audio, SAMPLE_RATE))

    spent: dict[str, list[float]] = {"plain": [], "extract": [], "extract, uint8": []}
    with tempfile.TemporaryDirectory(prefix="erv-bench-") as made:
        scratch = Path(made)
        ways: dict[str, Callable[[], Any]] = {
            "plain": lambda: plain_loop(folder, geometry, None, slice(len(paths))),
            "extract": lambda: extracted("pillow", scratch),
            "extract, uint8": lambda: extracted("uint8", scratch),
        }
        for _ in range(rounds + 1):  # the first warms up
            for name, way in ways.items():
                began = time.process_time()
                way()
                spent[name].append(1000 * (time.process_time() - began) / len(paths))
    values = {name: spread(times[1:]) for name, times in spent.items()}
    for name in ("extract", "extract, uint8"):
        ratios = [plain / ours for plain, ours in zip(spent["plain"][1:], spent[name][1:], strict=True)]
        values[f"{name}: times faster than plain"] = spread(ratios)
    return values


def machine() -> dict[str, Any]:
    """Cores and processor; no host name."""
    model = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {"cores": os.cpu_count(), "cpu": model, "python": platform.python_version()}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {
        "median": round(median(values), 3),
        "lowest": round(min(values), 3),
        "highest": round(max(values), 3),
    }


def main() -> None:
    """Prints clips per second, ratios and shares; writes them to benchmarks/extract.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clips", type=positive, default=480)
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--geometry", choices=["stretch", "pad"], default="stretch")
    parser.add_argument(
        "--one-core", action="store_true", help="CPU time in one process alone; about a minute"
    )
    parser.add_argument("--scratch", help="folder for clips and shards; default: the temporary folder")
    parser.add_argument("--results", type=Path, help=f"default: {RESULTS.name}, but only for the default run")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    usual = all(
        getattr(arguments, name) == parser.get_default(name) for name in ("clips", "rounds", "geometry")
    )
    if arguments.results is None and usual:
        arguments.results = RESULTS
    if arguments.way:
        print(json.dumps(run_way(arguments.way, arguments.folder, arguments.geometry)))
        return
    if arguments.scratch:  # for the child processes, too
        os.environ["TMPDIR"] = tempfile.tempdir = arguments.scratch
    with tempfile.TemporaryDirectory(prefix="erv-bench-") as scratch:
        folder = Path(scratch) / "clips"
        folder.mkdir()
        distinct = min(DISTINCT, arguments.clips)
        print(f"making {distinct} clips, each {arguments.clips // distinct} times")
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            made = pool.map(make_clip, range(distinct))
        for number in range(arguments.clips):
            (folder / f"{number:05d}.mp4").write_bytes(made[number % distinct])
        core = one_core(folder, arguments.geometry, distinct, max(3, arguments.rounds))
        for name, values in core.items():
            print(
                f"one core, {name:<40}{values['median']:7.2f}"
                f"  ({values['lowest']:.2f} to {values['highest']:.2f})"
            )
        if arguments.one_core:
            return
        rounds: list[dict[str, dict[str, float]]] = []
        for number in range(arguments.rounds):
            turn = WAYS[number % len(WAYS) :] + WAYS[: number % len(WAYS)]
            rounds.append({way: measure(way, folder, arguments.geometry) for way in turn})
            line = ", ".join(f"{way} {rounds[-1][way]['seconds']:.1f} s" for way in WAYS)
            print(f"round {number + 1}: {line}")
        shares = components(sorted(folder.glob("*.mp4"))[: 4 * DISTINCT], arguments.geometry)
    report(arguments, rounds, shares, sum(map(len, made)) / distinct, core)


def report(
    arguments: argparse.Namespace,
    rounds: Sequence[dict[str, dict[str, float]]],
    shares: dict[str, float],
    clip_bytes: float,
    core: dict[str, dict[str, float]],
) -> None:
    """Prints the figures and writes them to a file."""
    result: dict[str, Any] = {
        "command": f"python benchmarks/extract.py --clips {arguments.clips} --rounds {arguments.rounds}"
        f" --geometry {arguments.geometry}"
        + (f" --scratch {arguments.scratch}" if arguments.scratch else ""),
        "machine": machine(),
        "versions": {name: version(name) for name in LIBRARIES},
        "clip": f"{WIDTH}x{HEIGHT}, {FPS} fps, {SECONDS} s, {clip_bytes / 1000:.0f} kB",
        "clips_per_second": {
            way: spread([arguments.clips / turn[way]["seconds"] for turn in rounds]) for way in WAYS
        },
        "cpu_milliseconds_a_clip": {
            way: spread([1000 * turn[way]["cpu_seconds"] / arguments.clips for turn in rounds])
            for way in WAYS
        },
        "peak_mb_of_the_process": {way: round(max(turn[way]["peak_mb"] for turn in rounds)) for way in WAYS},
        "cpu_milliseconds_a_clip_on_one_core": core,
        "ratios": {},
        "milliseconds_a_clip": {name: round(value, 2) for name, value in shares.items()},
    }
    for way in EXTRACTS:
        for base in ("plain", "plain_save"):
            loop = [turn[base]["seconds"] / turn[way]["seconds"] for turn in rounds]
            whole = [turn[base]["whole_seconds"] / turn[way]["seconds"] for turn in rounds]
            result["ratios"][f"{way} to {base}, loop alone"] = spread(loop)
            result["ratios"][f"{way} to {base}, with its start"] = spread(whole)
    for two, one in (("plain_2", "plain"), ("extract_2", "extract_1")):
        scaled = [turn[one]["seconds"] / turn[two]["seconds"] for turn in rounds]
        result["ratios"][f"{two} to {one}"] = spread(scaled)
    if arguments.results is not None:
        arguments.results.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for way, values in result["clips_per_second"].items():
        print(
            f"{way:<16}{values['median']:7.1f} clips/s  ({values['lowest']:.1f} to {values['highest']:.1f})"
        )
    for way, values in result["cpu_milliseconds_a_clip"].items():
        print(f"{way:<16}{values['median']:7.1f} ms of CPU per clip, including imports and pinning")
    for name, values in result["ratios"].items():
        print(f"{name:<40}{values['median']:5.2f}x  ({values['lowest']:.2f} to {values['highest']:.2f})")
    total = sum(value for name, value in shares.items() if "," not in name)
    for name, value in sorted(shares.items(), key=lambda item: -item[1]):
        share = "" if "," in name else f"  {100 * value / total:4.1f}%"
        print(f"{name:<32}{value:7.2f} ms per clip{share}")


if __name__ == "__main__":
    main()
