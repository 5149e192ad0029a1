"""Clips that are built by hand: polyglots, variable frame rates, late and cancelling sound, wide pixels."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


@dataclass(frozen=True)
class Task:
    """The files of an item for a confined worker."""

    files: tuple[Path, ...]


def playlist_before(stream: bytes, named: Path) -> bytes:
    """A transport stream behind an HLS playlist that names another file.

    A comment fills the playlist up to a whole packet, so readers of streams find theirs at once.
    """
    text = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{named}\n#EXT-X-ENDLIST\n#".encode()
    return text.ljust(-(-(len(text) + 1) // 188) * 188 - 1, b"x") + b"\n" + stream


def timed_clip(
    starts: Sequence[float],
    *,
    form: str = "mp4",
    codec: str = "libx264",
    last: float | None = None,
    sound: np.ndarray | None = None,
    sound_at: float = 0.0,
    voice: str = "aac",
    pixel: Fraction | None = None,
    picture: np.ndarray | None = None,
) -> bytes:
    """A clip whose picture N, shown at `starts[N]` seconds, has the brightness 20 + 4 * N.

    Args:
        starts: in seconds.
        form: FFmpeg's name of the container.
        codec: encoder of the pictures.
        last: seconds that the last picture is shown.
        sound: float [channels, samples] at 44.1 kHz.
        sound_at: its start in seconds.
        voice: encoder of the sound.
        pixel: width of a pixel over its height.
        picture: all pictures, uint8 RGB, instead of those by number.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form) as out:
        options = {"x264-params": "scenecut=0:threads=1:bframes=0"} if codec == "libx264" else {}
        video = out.add_stream(codec, rate=25, options=options)
        video.height, video.width = (96, 160) if picture is None else picture.shape[:2]
        video.pix_fmt, video.time_base = "yuv420p", Fraction(1, 1000)
        video.codec_context.time_base = Fraction(1, 1000)
        if pixel is not None:
            video.sample_aspect_ratio = pixel
            video.codec_context.sample_aspect_ratio = pixel
        packets: list[av.Packet] = []
        layout = "mono" if sound is None or len(sound) == 1 else "stereo"
        track = None if sound is None else out.add_stream(voice, rate=44100, layout=layout)
        for number, start in enumerate(starts):
            pixels = np.full((96, 160, 3), 20 + 4 * number % 220, np.uint8) if picture is None else picture
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(1000 * start), Fraction(1, 1000)
            packets += video.encode(frame)
        packets += video.encode(None)
        if last is not None:
            packets[-1].duration = round(last / packets[-1].time_base)
        out.mux(packets)
        if track is not None and sound is not None:
            for begin in range(0, sound.shape[1], 1024):
                part = np.ascontiguousarray(sound[:, begin : begin + 1024], np.float32)
                heard = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
                heard.sample_rate, heard.time_base = 44100, Fraction(1, 44100)
                heard.pts = begin + round(44100 * sound_at)
                out.mux(track.encode(heard))
            out.mux(track.encode(None))
    return buffer.getvalue()


def many_tracks(
    form: str,
    films: Sequence[tuple[Sequence[np.ndarray], int]],
    voices: Sequence[tuple[np.ndarray, int]],
    *,
    codec: str = "libx264",
    voice: str = "aac",
    layout: str = "stereo",
) -> bytes:
    """A clip of several tracks.

    Args:
        form: FFmpeg's name of the container.
        films: pictures (uint8 RGB, 25 a second) and disposition of each video track; one with the disposition
            of a cover is encoded as JPEG.
        voices: sound (float [channels, samples] at 16 kHz) and disposition of each sound track.
        codec: encoder of the pictures.
        voice: encoder of the sound.
        layout: of the sound's channels.
    """
    from av.stream import Disposition

    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form) as out:
        seen, heard = [], []
        for pictures, disposition in films:
            cover = bool(disposition & Disposition.attached_pic)
            track = out.add_stream("mjpeg" if cover else codec, rate=25)
            track.height, track.width = pictures[0].shape[:2]
            track.pix_fmt, track.disposition = "yuvj420p" if cover else "yuv420p", Disposition(disposition)
            seen.append(track)
        for _, disposition in voices:
            sound = out.add_stream(voice, rate=16000, layout=layout)
            sound.disposition = Disposition(disposition)
            heard.append(sound)
        for track, (pictures, _) in zip(seen, films, strict=True):
            for number, pixels in enumerate(pictures):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                out.mux(track.encode(frame))
            out.mux(track.encode(None))
        for sound, (samples, _) in zip(heard, voices, strict=True):
            for begin in range(0, samples.shape[1], 1024):
                part = np.ascontiguousarray(samples[:, begin : begin + 1024], np.float32)
                packed = part.T.reshape(1, -1)
                spoken = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
                spoken.sample_rate, spoken.pts, spoken.time_base = 16000, begin, Fraction(1, 16000)
                out.mux(sound.encode(spoken))
            out.mux(sound.encode(None))
    return buffer.getvalue()
