import io
import re
import struct
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from erv.media.decode import DecodeRule, MediaError, decode, frame_indices, to_square
from erv.media.header import read_header
from erv.media.seeking import survey
from erv.sample.clips import encode
from tests.fuzz.mutations import index_first
from tests.support.clips import CONTAINERS, movie, numbered_clip, picture_numbers, tone, trimmed

RULE = DecodeRule(frames=8, size=64, geometry="stretch", sample_rate=16000)


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "c.mp4"
    path.write_bytes(encode(movie(), tone(2.0)))
    return path


@pytest.fixture
def folder(tmp_path):
    """Twelve images with names that sort differently from their numbers, and a file that is not a frame."""
    folder = tmp_path / "00001"
    folder.mkdir()
    for index, pixels in enumerate(movie(12), start=1):
        Image.fromarray(pixels).save(folder / f"00001_{index}.{'png' if index % 2 else 'jpg'}")
    (folder / "notes.txt").write_text("12 frames")
    return folder


def numbers(frames):
    return np.round((frames.mean(axis=(1, 2, 3)) - 40) / 6).astype(int).tolist()


def reason(path, rule=RULE):
    with pytest.raises(MediaError) as caught:
        decode(path, rule)
    assert str(path) not in str(caught.value)
    assert not re.search(r"\d\d:\d\d:\d\d|\.cc:\d|0x[0-9a-f]{6}", str(caught.value))
    return str(caught.value)


def test_the_right_frames_and_the_whole_sound(clip):
    decoded = decode(clip, RULE)
    assert decoded.frames.shape == (8, 64, 64, 3)
    assert numbers(decoded.frames) == [1, 4, 7, 10, 13, 16, 19, 22]
    assert decoded.audio.dtype == np.int16
    assert abs(len(decoded.audio) - 32000) < 2500
    spectrum = np.abs(np.fft.rfft(decoded.audio[2000:30000]))
    assert abs(np.fft.rfftfreq(28000, 1 / 16000)[spectrum.argmax()] - 440) < 3


def test_a_short_video_repeats_frames(tmp_path):
    path = tmp_path / "short.mp4"
    path.write_bytes(encode(movie(3), tone(0.25)))
    assert numbers(decode(path, RULE).frames) == [0, 0, 1, 1, 1, 1, 2, 2]
    black = DecodeRule(8, 64, "stretch", 16000, "black")  # for folders alone
    np.testing.assert_array_equal(decode(path, black).frames, decode(path, RULE).frames)


def test_a_clip_without_sound_has_none(tmp_path):
    path = tmp_path / "silent.mp4"
    path.write_bytes(encode(movie(), None))
    assert decode(path, RULE).audio is None


def test_a_folder_is_taken_in_the_order_of_its_numbers(folder):
    decoded = decode(folder, RULE)
    assert decoded.audio is None
    assert decoded.frames.shape == (8, 64, 64, 3)
    assert numbers(decoded.frames) == [1, 2, 3, 5, 6, 8, 9, 10]


def test_images_of_a_folder_may_differ_in_size(folder):
    Image.fromarray(np.full((30, 20, 3), 46, np.uint8)).save(folder / "00001_2.jpg")
    assert numbers(decode(folder, RULE).frames)[0] == 1


@pytest.mark.parametrize(
    ("name", "make", "expected"),
    [
        ("x.jpg", b"", "frame without a number: 'x.jpg'"),
        ("a_007.png", b"", "two frames with one number: '00001_7.png' and 'a_007.png'"),
        ("00001_2.jpg", b"not an image", "image can't be decoded: '00001_2.jpg': cannot identify image file"),
        ("00001_2.jpg", b"", "image can't be decoded: '00001_2.jpg': cannot identify image file"),
        ("00001_2.jpg", "cut", "image can't be decoded: '00001_2.jpg': image file is truncated"),
        ("00001_2.jpg", (20000, 20), "too large: an image of 20000 x 20 pixels, at most 8192 a side"),
        ("00001_2.jpg", (30000, 30000), "too large: Image size (900000000 pixels) exceeds limit"),
        ("00001_2.jpg", "I;16", "image of mode I;16, expected 8 bits a channel"),
    ],
)
def test_a_folder_that_cannot_be_used_says_why(folder, name, make, expected):
    path = folder / name
    if make == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif make == "I;16":
        Image.fromarray(np.zeros((4, 4), np.uint16)).save(path, format="png")
    elif isinstance(make, tuple):
        path.write_bytes(png_header(*make))
    else:
        path.write_bytes(make)
    assert reason(folder).startswith(expected)


def png_header(width, height):
    """A PNG file that claims a size and holds next to nothing."""
    import zlib

    def chunk(kind, content):
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def test_an_empty_folder_is_a_reason(tmp_path):
    assert reason(tmp_path) == "frame folder has no images"


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ("empty", "the file is empty"),
        ("noise", "container can't be read: "),
        ("cut", "container can't be read: "),
        ("middle", "video can't be decoded: "),
        ("playlist", "container can't be read: "),
        ("concat", "container can't be read: "),
    ],
)
def test_a_damaged_file_says_what_is_wrong_without_its_path(clip, damage, expected):
    content = clip.read_bytes()
    third = len(content) // 3
    clip.write_bytes(
        {
            "empty": b"",
            "noise": bytes(range(256)) * 40,
            "cut": content[: len(content) // 2],
            "middle": content[:third] + bytes(third) + content[2 * third :],
            "playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nother.mp4\n#EXT-X-ENDLIST\n",
            "concat": b"ffconcat version 1.0\nfile other.mp4\n",
        }[damage]
    )
    assert reason(clip).startswith(expected)


def boxes(content, wanted, start=0, end=None):
    """Positions of boxes of an mp4 file, nested ones too."""
    end = len(content) if end is None else end
    position = start
    while position + 8 <= end:
        size, kind = struct.unpack(">I4s", content[position : position + 8])
        if kind == wanted:
            yield position
        if kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
            yield from boxes(content, wanted, position + 8, position + size)
        position += max(8, size)


def test_pictures_of_gigabytes_are_refused_before_they_are_decoded(clip):
    content = bytearray(clip.read_bytes())
    at = next(boxes(content, b"stsd")) + 16  # the sample entry
    content[at + 32 : at + 36] = struct.pack(">HH", 12000, 12000)
    clip.write_bytes(content)
    assert reason(clip).startswith("too large: pictures of 12000 x 12000 pixels")


def test_a_header_that_claims_ten_hours_is_refused(tmp_path):
    path = tmp_path / "c.mp4"
    path.write_bytes(encode(movie(), None, fps=Fraction(24, 36000)))
    assert reason(path) == "too long: 36000 s, at most 3600 s are taken"


def test_sound_alone_is_no_clip(tmp_path):
    import wave

    path = tmp_path / "c.mp4"
    with wave.open(str(path), "wb") as sound:
        sound.setparams((1, 2, 16000, 0, "NONE", ""))
        sound.writeframes(tone(1.0).tobytes())
    assert reason(path) == "no video track"


def test_a_copy_that_was_cut_off_is_not_taken_for_the_whole(clip):
    content = clip.read_bytes()
    # The index first, as in files made for streaming: what is left would play.
    moov, mdat = next(boxes(content, b"moov")), next(boxes(content, b"mdat"))
    assert mdat < moov
    index = bytearray(content[moov:])
    for kind in (b"stco",):
        for at in boxes(index, kind):
            count = struct.unpack(">I", index[at + 12 : at + 16])[0]
            for entry in range(at + 16, at + 16 + 4 * count, 4):
                offset = struct.unpack(">I", index[entry : entry + 4])[0]
                index[entry : entry + 4] = struct.pack(">I", offset + len(index))
    whole = content[:mdat] + bytes(index) + content[mdat:moov]
    clip.write_bytes(whole)
    assert numbers(decode(clip, RULE).frames) == [1, 4, 7, 10, 13, 16, 19, 22]
    clip.write_bytes(whole[:-1000])
    assert reason(clip) == "truncated: the file lacks its last 1000 bytes"


def test_sound_that_is_not_numbers_is_refused(tmp_path):
    import av

    path = tmp_path / "c.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=12)
        video.width, video.height, video.pix_fmt = 160, 96, "yuv420p"
        sound = container.add_stream("pcm_f32le", rate=16000, layout="mono")
        for pixels in movie():
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode(None))
        samples = np.full((1, 16000), np.nan, np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="flt", layout="mono")
        frame.sample_rate = 16000
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    assert reason(path) == "sound holds values that are not numbers"


def test_padding_centres_on_grey_and_stretching_fills():
    frames = np.full((1, 20, 40, 3), 200, np.uint8)
    padded = to_square(frames, 40, "pad")[0]
    assert (padded[0] == 127).all()
    assert (padded[-1] == 127).all()
    assert (padded[20] == 200).all()
    assert (to_square(frames, 40, "stretch") == 200).all()


@pytest.mark.parametrize("shape", [(31, 48), (48, 31), (90, 160), (160, 91), (7, 500), (50, 50)])
@pytest.mark.parametrize("size", [24, 64, 224])
def test_adding_grey_late_gives_the_same_pixels(shape, size):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    side = max(shape)
    canvas = Image.new("RGB", (side, side), (127, 127, 127))
    canvas.paste(Image.fromarray(pixels), ((side - shape[1]) // 2, (side - shape[0]) // 2))
    wide = canvas.resize((size, side), Image.Resampling.BICUBIC)
    expected = np.asarray(wide.resize((size, size), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(to_square(pixels[None], size, "pad")[0], expected)


@pytest.mark.parametrize(
    ("gop", "edits", "expected"),
    [
        (250, [(0.2, 1.8)], [8, 13, 19, 24, 30, 35, 41, 46]),
        (250, [(0.0, 1.0)], [2, 5, 8, 11, 14, 17, 20, 23]),
        (12, [(0.2, 1.8)], [8, 13, 19, 24, 30, 35, 41, 46]),
        (12, [(0.0, 1.0)], [2, 5, 8, 11, 14, 17, 20, 23]),
        (12, [(0.6, 1.0)], [17, 20, 23, 26, 29, 32, 35, 38]),
        (12, [(0.2, 0.4), (1.2, 0.4)], [6, 9, 11, 13, 31, 33, 35, 38]),
        (10, [(0.0, 1.0), (1.0, 1.0)], [3, 9, 15, 21, 28, 34, 40, 46]),
        (12, [(0.2, 0.01)], [5] * 8),
    ],
)
def test_of_a_trimmed_clip_the_frames_that_a_player_shows_are_taken(tmp_path, gop, edits, expected):
    path = tmp_path / "c.mp4"
    path.write_bytes(trimmed(numbered_clip(gop=gop), *edits))
    assert picture_numbers(decode(path, RULE).frames) == expected


def test_pictures_with_references_to_both_sides_are_trimmed_as_they_are_shown(tmp_path):
    path = tmp_path / "c.mp4"
    content = numbered_clip(gop=250, bframes=3)
    path.write_bytes(content)
    assert read_header(path).shown is None  # the list that shifts such pictures by two hides none
    path.write_bytes(trimmed(content, (0.28, 1.0)))
    assert read_header(path).shown == 25
    assert picture_numbers(decode(path, RULE).frames) == [7, 10, 13, 16, 19, 22, 25, 28]


@pytest.mark.parametrize("matrix", [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)])
def test_pictures_of_a_trimmed_clip_are_those_of_the_whole(tmp_path, matrix):
    path, rng = tmp_path / "c.mp4", np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (96, 160, 3), dtype=np.uint8) for _ in range(12)]
    content = bytearray(encode(pictures, None, fps=12))
    at = next(boxes(content, b"tkhd")) + 48
    a, b, c, d = (value << 16 for value in matrix)
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    rule = DecodeRule(frames=60, size=64, geometry="pad", sample_rate=16000)
    path.write_bytes(content)
    whole = dict(zip(frame_indices(12, 60).tolist(), decode(path, rule).frames, strict=True))
    path.write_bytes(trimmed(bytes(content), (0.0, 0.5)))
    count = read_header(path).shown
    assert count in range(4, 7)
    first = 6 - count  # pictures are shifted for those that refer to later ones
    assert first in (0, 1, 2)
    for number, square in zip(frame_indices(count, 60).tolist(), decode(path, rule).frames, strict=True):
        np.testing.assert_array_equal(square, whole[number])


def test_the_sound_of_a_trimmed_clip_is_that_of_its_own_edit_list(tmp_path):
    path = tmp_path / "c.mp4"
    content = trimmed(numbered_clip(), (0.6, 1.0))
    path.write_bytes(content)
    assert abs(len(decode(path, RULE).audio) - 32000) < 1024
    path.write_bytes(trimmed(content, (0.6, 1.0), track=b"soun"))
    assert abs(len(decode(path, RULE).audio) - 16000) < 1024


def test_a_trimmed_clip_that_was_cut_off_is_not_taken_for_the_whole(tmp_path):
    path = tmp_path / "c.mp4"
    content = index_first(trimmed(numbered_clip(sound=None, gop=250), (0.2, 1.8)))
    path.write_bytes(content)
    assert picture_numbers(decode(path, RULE).frames) == [8, 13, 19, 24, 30, 35, 41, 46]
    path.write_bytes(content[:-300])
    assert reason(path) == "truncated: the file lacks its last 300 bytes"
    (media,) = boxes(content, b"mdat")
    size = struct.pack(">I", len(content) - 300 - media)
    path.write_bytes(content[:media] + size + content[media + 4 : -300])
    assert reason(path).startswith("video can't be decoded: ")


def test_an_edit_list_that_shows_nothing_is_a_reason(tmp_path):
    path = tmp_path / "c.mp4"
    path.write_bytes(trimmed(numbered_clip(), (5.0, 1.0)))
    assert reason(path) == "the edit list shows no frame"


@pytest.mark.parametrize(
    ("suffix", "form", "codec", "sound"), [*CONTAINERS, ("mpg", "mpegts", "libx264", "aac")]
)
@pytest.mark.parametrize("with_sound", [True, False])
def test_the_right_frames_of_every_container(tmp_path, suffix, form, codec, sound, with_sound):
    """decord takes others, without a word, where it can't seek."""
    path = tmp_path / f"1.{suffix}"
    path.write_bytes(numbered_clip(form=form, video=codec, sound=sound if with_sound else None))
    found = picture_numbers(decode(path, DecodeRule(8, 64, "stretch", 16000)).frames)
    # Coding shifts a brightness by less than the next picture's.
    assert np.abs(np.array(found) - [3, 9, 15, 21, 28, 34, 40, 46]).max() <= 1


@pytest.mark.parametrize(
    ("suffix", "given"),
    [
        ("mp4", {"bframes": 3, "encoder": "open-gop=1:b-pyramid=normal"}),
        ("mp4", {"encoder": "intra-refresh=1"}),
        ("mp4", {"video": "libx265", "bframes": 2}),
        ("mp4", {"video": "mpeg4", "bframes": 2}),
        ("mkv", {"form": "matroska", "video": "mpeg2video", "bframes": 2}),
        ("avi", {"form": "avi", "video": "mpeg4", "sound": "mp2", "bframes": 2}),
        ("mkv", {"form": "matroska", "options": {"live": "1"}}),
    ],
    ids=lambda value: str(value).replace(" ", ""),
)
def test_the_right_frames_after_key_frames_that_are_no_fresh_start(tmp_path, suffix, given):
    path = tmp_path / f"1.{suffix}"
    path.write_bytes(numbered_clip(gop=10, **given))
    assert not survey(path, read_header(path)).seekable
    found = picture_numbers(decode(path, DecodeRule(8, 64, "stretch", 16000)).frames)
    assert np.abs(np.array(found) - [3, 9, 15, 21, 28, 34, 40, 46]).max() <= 1


def test_decord_finds_pictures_where_every_key_frame_is_a_fresh_start(tmp_path):
    for suffix, given in (
        ("mp4", {"bframes": 3}),
        ("mkv", {"form": "matroska"}),
        ("webm", {"form": "webm", "video": "libvpx-vp9", "sound": "libopus"}),
    ):
        path = tmp_path / f"1.{suffix}"
        path.write_bytes(numbered_clip(gop=10, **given))
        found = survey(path, read_header(path))
        assert (found.packets, found.seekable) == (50, True)


def test_a_browser_s_recording_with_irregular_pictures_is_decoded_in_order(tmp_path):
    """decord refuses it: "Failed to measure duration/frame-count due to broken metadata"."""
    import av
    import decord

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="webm") as container:
        video = container.add_stream("libvpx")
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        video.time_base = video.codec_context.time_base = Fraction(1, 1000)
        for place, milliseconds in enumerate((5, 600, 1700, 2900)):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 60 * place + 30, np.uint8))
            frame.pts, frame.time_base = milliseconds, Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode())
    content = buffer.getvalue()
    start = content.index(b"\x23\xe3\x83")  # the rate, which browsers leave out
    rest = (content[start + 3] & 127) + 2
    content = content[:start] + bytes([0xEC, 0x80 | rest]) + bytes(rest) + content[start + 2 + rest :]
    path = tmp_path / "1.webm"
    path.write_bytes(content)
    with pytest.raises(decord.DECORDError, match="Failed to measure"):
        decord.VideoReader(str(path))
    assert survey(path, read_header(path)).seekable
    found = decode(path, DecodeRule(4, 64, "stretch", 16000)).frames.mean(axis=(1, 2, 3))
    assert found == pytest.approx([30, 90, 150, 210], abs=70), (
        "times decide which picture stands for which part"
    )
    assert found[0] < found[-1]


def test_what_decord_makes_of_an_open_group_of_pictures(tmp_path):
    """Why such clips are decoded from their begin; when this fails, see whether that is still needed."""
    import decord

    path = tmp_path / "1.mp4"
    path.write_bytes(numbered_clip(gop=10, video="mpeg4", bframes=2))
    video = decord.VideoReader(str(path))
    found = picture_numbers(video.get_batch([15, 28, 34]).asnumpy())
    assert np.abs(np.array(found) - [15, 28, 34]).max() > 1


@pytest.mark.parametrize("geometry", ["stretch", "pad"])
@pytest.mark.parametrize(("height", "width"), [(360, 640), (640, 360), (50, 70), (224, 224)])
def test_the_faster_filter_differs_by_at_most_one(geometry, height, width):
    noise = np.random.default_rng(0).integers(0, 256, (height // 5 + 1, width // 5 + 1, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BILINEAR))[None]
    exact = to_square(pixels, 224, geometry).astype(int)
    assert np.abs(to_square(pixels, 224, geometry, "uint8") - exact).max() <= 1
