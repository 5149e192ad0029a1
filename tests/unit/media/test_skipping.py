"""Skipped pictures change nothing: what is chosen equals full decoding, and damage in it is still noticed."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from erv.media import decode as media
from erv.media.decode import DecodeRule, MediaError, decode
from erv.media.header import read_header
from erv.media.seeking import survey
from erv.media.sequential import shown_pictures, upright
from erv.media.timing import chosen_frames

RULE = DecodeRule(frames=8, size=64, geometry="stretch", sample_rate=16000)
UNEVEN = [
    0.04 * number + (0.7 if number > 20 else 0.0) + (1.5 if number > 31 else 0.0) for number in range(40)
]


def moving_clip(params="bframes=3", *, form="mp4", starts=None, pixels="yuv420p", options=None):
    """40 pictures of a moving texture with noise, in H.264."""
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form, options=options or {}) as out:
        encoder = {"preset": "fast", "x264-params": f"threads=1:log=-1:{params}"}
        video = out.add_stream("libx264", rate=25, options=encoder)
        video.width, video.height, video.pix_fmt = 160, 96, pixels
        video.time_base = video.codec_context.time_base = Fraction(1, 1000)
        for number, start in enumerate(starts or [0.04 * number for number in range(40)]):
            x, y = round(30 + 25 * np.sin(number / 5)), round(25 + 20 * np.cos(number / 7))
            picture = texture[y : y + 96, x : x + 160] // 2 + rng.integers(0, 99, (96, 160, 1), np.uint8)
            frame = av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(1000 * start), Fraction(1, 1000)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return buffer.getvalue()


def fully_decoded(path, rule):
    """The chosen frames, with every picture decoded from the first on."""
    header = read_header(path)
    pictures = [upright(frame) for frame in shown_pictures(path, header.form, header.film, header.shown)]
    indices = chosen_frames(len(pictures), survey(path, header).times, rule.frames)
    return np.stack(
        [
            media._square(Image.fromarray(pictures[index]), rule.size, rule.geometry, "pillow")
            for index in indices
        ]
    )


@pytest.fixture
def ways(monkeypatch):
    """The ways in which the pictures of clips were decoded."""
    used = []

    def noting(name, function):
        def noted(*arguments):
            found = function(*arguments)
            used.append((name, found is not None))
            return found

        return noted

    for name in ("by_parts", "by_number", "in_order"):
        function = getattr(media, f"_frames_{name}")
        monkeypatch.setattr(media, f"_frames_{name}", noting(name, function))
    return used


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"params": "bframes=8:b-adapt=0:b-pyramid=strict"},
        {"params": "bframes=16:b-adapt=0:ref=6"},
        {"params": "bframes=3:b-pyramid=none:weightp=2:direct=temporal"},
        {"params": "bframes=3:slices=5"},
        {"params": "bframes=3:cabac=0"},
        {"params": "bframes=0"},
        {"params": "bframes=3:keyint=9:scenecut=0"},
        {"starts": UNEVEN},
        {"starts": [2.5 + 0.04 * number for number in range(40)]},
        {"starts": [0.0], "params": "bframes=0"},
        {"form": "matroska"},
        {"form": "mov"},
        {"options": {"movflags": "frag_keyframe+empty_moov"}, "params": "bframes=3:keyint=9"},
        {"pixels": "yuv444p"},
        {"pixels": "yuvj420p"},
    ],
    ids=str,
)
def test_chosen_pictures_equal_full_decoding(tmp_path, ways, options):
    path = tmp_path / "clip.bin"
    path.write_bytes(moving_clip(**options))
    for rule in (RULE, DecodeRule(40, 48, "pad", 16000), DecodeRule(1, 32, "stretch", 16000)):
        np.testing.assert_array_equal(decode(path, rule).frames, fully_decoded(path, rule))
    assert ways == [("by_parts", True)] * 3


@pytest.mark.parametrize(
    ("options", "way"),
    [
        ({"params": "open-gop=1:bframes=3:keyint=9:scenecut=0"}, "in_order"),
        ({"params": "intra-refresh=1:bframes=0:keyint=9"}, "in_order"),
        ({"params": "tff=1:bframes=3"}, "by_number"),
        ({"pixels": "yuv420p10le"}, "by_number"),
    ],
    ids=str,
)
def test_what_is_not_known_to_be_equal_is_decoded_as_before(tmp_path, ways, options, way):
    path = tmp_path / "clip.mp4"
    path.write_bytes(moving_clip(**options))
    decode(path, RULE)
    assert ways[-1] == (way, True)
    assert ways[:-1] in ([], [("by_parts", False)])


def places(path):
    """The packets of a clip: where each lies in the file, how long it is, and whether it is needed."""
    found = survey(path, read_header(path))
    chosen = np.isin(np.argsort(np.argsort(found.order.starts)), chosen_frames(40, found.times, 8))
    with av.open(str(path)) as container:
        spots = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    return [
        (*spot, bool(needed), bool(wanted))
        for spot, needed, wanted in zip(spots, found.order.needed(chosen), chosen, strict=True)
    ]


def test_damage_in_a_picture_that_is_needed_is_noticed(tmp_path):
    path, content = tmp_path / "clip.mp4", moving_clip()
    path.write_bytes(content)
    for position, size, needed, wanted in places(path)[::3]:
        damaged = bytearray(content)
        damaged[position : position + size] = bytes(size)
        path.write_bytes(damaged)
        if needed:
            with pytest.raises(MediaError, match="video can't be decoded: "):
                decode(path, RULE)
        else:
            assert not wanted
    path.write_bytes(content)
    assert {True, False} == {needed for *_, needed, _ in places(path)[::3]}


def test_damage_in_a_skipped_picture_does_not_reach_the_chosen_ones(tmp_path):
    path, content = tmp_path / "clip.mp4", moving_clip()
    path.write_bytes(content)
    whole = decode(path, RULE).frames
    position, size = next((at, size) for at, size, needed, _ in places(path) if not needed and size > 60)
    damaged = bytearray(content)
    damaged[position + 12 : position + size] = bytes(
        255 - byte for byte in damaged[position + 12 : position + size]
    )
    path.write_bytes(damaged)
    np.testing.assert_array_equal(decode(path, RULE).frames, whole)
