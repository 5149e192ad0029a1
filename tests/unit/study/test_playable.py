"""Clips as browsers play them, made in a confined worker."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from erv.media.limits import MediaError
from erv.media.workers import isolated
from erv.study.playable import LONGEST_SIDE, PLAYABLE, PlayTask, load, playable
from tests.support.clips import numbered_clip, trimmed
from tests.support.media import timed_clip


def made(content: bytes, folder: Path) -> bytes:
    path = folder / "clip"
    path.write_bytes(content)
    return playable(PlayTask((path,))).tobytes()


def test_a_clip_of_another_format_becomes_h264_and_aac_in_step(tmp_path: Path) -> None:
    source = numbered_clip(30, form="matroska", video="libvpx-vp9", sound="libopus")
    with av.open(io.BytesIO(made(source, tmp_path))) as clip:
        film, voice = clip.streams.video[0], clip.streams.audio[0]
        assert (film.codec_context.name, film.pix_fmt, voice.codec_context.name) == ("h264", "yuv420p", "aac")
        assert (film.width, film.height) == (160, 96)
        pictures = [(frame.time, frame.to_ndarray(format="gray8").mean()) for frame in clip.decode(film)]
    assert [round(time, 3) for time, _ in pictures] == [round(number / 25, 3) for number in range(30)]
    # Brightness 20 + 4 N of the source, through two codecs.
    shown = np.array([level for _, level in pictures])
    assert np.all(np.diff(shown) > 0)
    assert shown == pytest.approx(20 + 4 * np.arange(30), abs=3)
    with av.open(io.BytesIO(made(source, tmp_path))) as clip:
        heard = sum(frame.samples for frame in clip.decode(audio=0))
    assert heard / 48_000 == pytest.approx(1.2, abs=0.05)


def test_it_has_the_same_bytes_in_every_process_and_nothing_of_the_source(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with av.open(io.BytesIO(numbered_clip(20))) as source, av.open(buffer, "w", format="mp4") as out:
        out.metadata["title"] = "mafw/00042"
        tracks = {track.index: out.add_stream_from_template(track) for track in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = tracks[packet.stream.index]
                out.mux(packet)
    path = tmp_path / "00042.mp4"
    path.write_bytes(buffer.getvalue())
    assert b"mafw/00042" in buffer.getvalue()
    tasks = [PlayTask((path,))] * 2
    outcomes = list(
        isolated(
            playable,
            tasks,
            workers=2,
            seconds=60,
            memory_mb=2000,
            expected=(MediaError,),
            prepare=load,
            confined=True,
            form=PLAYABLE,
        )
    )
    results = [outcome.result.tobytes() for outcome in outcomes if outcome.result is not None]
    assert [outcome.failure for outcome in outcomes] == [None, None]
    assert results[0] == results[1]
    assert b"00042" not in results[0]


def test_large_pictures_are_made_smaller_and_wide_pixels_square(tmp_path: Path) -> None:
    picture = np.full((480, 720, 3), 120, np.uint8)
    content = timed_clip([0, 0.1, 0.2], picture=picture, pixel=Fraction(64, 45))
    with av.open(io.BytesIO(made(content, tmp_path))) as clip:
        film = clip.streams.video[0]
        assert (film.width, film.height) == (LONGEST_SIDE, 300)  # 1024 x 480 as a player shows it
        assert film.sample_aspect_ratio in (None, 1)


def test_pictures_keep_their_times_and_the_cut_of_an_edit_list(tmp_path: Path) -> None:
    with av.open(io.BytesIO(made(timed_clip([0, 0.1, 0.5, 0.52], last=0.5), tmp_path))) as clip:
        film = clip.streams.video[0]
        assert float(film.duration * film.time_base) == pytest.approx(1.02, abs=0.01)
        assert [round(frame.time, 2) for frame in clip.decode(film)] == [0, 0.1, 0.5, 0.52]
    with av.open(io.BytesIO(made(trimmed(numbered_clip(50), (0.4, 0.8)), tmp_path))) as clip:
        assert sum(1 for _ in clip.decode(video=0)) == 20


def test_a_clip_that_no_rater_should_watch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="too long: 200 s, at most 120 s"):
        made(timed_clip([0, 100, 200]), tmp_path)
    with pytest.raises(MediaError, match="not a known video format"):
        made(b"no clip", tmp_path)
