import filecmp
import shutil
import threading

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from openpyxl import load_workbook

from erv.errors import DataError
from erv.pinning import pin
from erv.sample.emotions import EMOTIONS, EXPRESSIONS
from erv.sample.face import FaceRenderer, Pose
from erv.sample.layouts import MARK
from erv.sample.people import draw_person
from erv.sample.sample import _CLIP_TREES, TREES, SampleSize, write_sample
from erv.sample.voice import Prosody, Speaker, prosody, synthesize
from tests.unit.conftest import SMALL


def files(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_for_any_number_of_workers(corpus, tmp_path):
    write_sample(tmp_path, 0, SMALL, workers=1, skip_base=True)
    assert files(tmp_path) == files(corpus)
    _, different, failed = filecmp.cmpfiles(corpus, tmp_path, files(corpus), shallow=False)
    assert (different, failed) == ([], [])


def test_every_tree_has_the_mark_that_uploads_look_for(corpus, tmp_path, monkeypatch):
    # The mark of base is written before its weights; training these is tested elsewhere.
    def write_base(tree, out, seed, *, progress):
        (out / "policy").mkdir()
        (out / "policy" / "config.json").write_text("{}")

    shutil.copytree(corpus, tmp_path / "corpus")
    monkeypatch.setattr("erv.sample.base_checkpoint.write_base", write_base)
    folders = write_sample(tmp_path / "corpus", 0, SMALL)
    assert [folder.name for folder in folders] == list(TREES)
    marks = [[p.name for p in folder.iterdir() if p.name in ("cues.parquet", MARK)] for folder in folders]
    assert marks == [["cues.parquet"]] * 3 + [["SAMPLE.txt"]] * 2
    lock = pin("base", str(tmp_path / "corpus/base"), None)
    lock.fetch_tree(None, "policy", tmp_path / "policy")
    assert files(tmp_path / "policy") == ["config.json"]


def test_mafw_and_dfew_are_drawn_while_the_base_checkpoint_is_trained(tmp_path, monkeypatch):
    lines, unfinished, drawn = [], [], threading.Event()

    def write_base(tree, out, seed, *, progress):
        assert (tree / "EMER.csv").is_file()
        unfinished.extend(name for name in ("mafw", "dfew") if not (tmp_path / name).exists())
        assert drawn.wait(60), "nothing is drawn meanwhile"

    def progress(line):
        lines.append(line)
        if line.startswith("mafw"):
            drawn.set()

    monkeypatch.setattr("erv.sample.base_checkpoint.write_base", write_base)
    written = write_sample(tmp_path, 0, SampleSize(11, 7, 11, 2), progress=progress)
    assert unfinished == ["mafw", "dfew"]
    assert [folder.name for folder in written] == list(TREES)
    assert all(folder.is_dir() for folder in written)
    assert {"mafw: 11/11 clips", "dfew: 7/7 clips", "reasoning: 11/11 clips"} <= set(lines)


@pytest.mark.slow
def test_what_goes_wrong_beside_the_training_is_raised(tmp_path, monkeypatch):
    def broken(folder, plan, rng):
        raise DataError("no list can be written")

    monkeypatch.setitem(_CLIP_TREES, "mafw", _CLIP_TREES["mafw"]._replace(write=broken))
    with pytest.raises(DataError, match="no list can be written"):
        write_sample(tmp_path, 0, SampleSize(11, 7, 11, 2), skip_base=True)
    assert not (tmp_path / "mafw").exists()
    assert (tmp_path / "reasoning").is_dir()


def test_clips_are_h264_and_aac(corpus):
    for path in sorted((corpus / "mafw/data/clips").iterdir())[:3]:
        with av.open(str(path)) as container:
            video, audio = container.streams.video[0], container.streams.audio[0]
            assert (video.codec_context.name, video.width, video.height) == ("h264", 160, 160)
            assert (audio.codec_context.name, audio.rate, audio.channels) == ("aac", 16000, 1)
            assert float(video.average_rate) == 12
            assert 1.8 < len(list(container.decode(video=0))) / 12 < 2.6


def test_the_cues_written_are_cues_of_the_emotion(corpus):
    for tree in ("mafw", "dfew", "reasoning"):
        table = pq.read_table(corpus / tree / "cues.parquet").to_pylist()
        for row in table:
            expression = EXPRESSIONS[row["emotion"]]
            assert set(row["face_cues"]) <= {*expression.face, "face_still"}
            assert set(row["voice_cues"]) <= {*expression.voice, "voice_even"}
            assert row["face_cues"]
            assert row["voice_cues"]
        assert ("contradicts" in table[0]) == (tree == "reasoning")


def test_official_encodings(corpus):
    split = corpus / "mafw/Train & Test Set/single"
    plain = (split / "no_caption/set_1/train.txt").read_bytes()
    assert plain.endswith(b"\r\n")
    captioned = (split / "with_caption/set_1/train.txt").read_bytes()
    with pytest.raises(UnicodeDecodeError):
        captioned.decode("utf-8")
    rows = [line.split("\t") for line in captioned.decode("gb18030").splitlines()]
    assert {len(row) for row in rows} == {4}
    assert "neutral" not in {row[1] for row in rows}
    sheet = load_workbook(corpus / "mafw/Labels/single-set.xlsx").active
    assert sheet.max_column == 13
    assert {row[12] for row in sheet.iter_rows(min_row=2, values_only=True)} == set(range(1, 12))


def test_a_size_is_checked():
    assert SampleSize.parse("tiny").mafw == 66
    assert SampleSize.parse("110") == SampleSize(110, 70, 110, 60)
    for text in ("huge", "10", "-5"):
        with pytest.raises(DataError, match="sample size"):
            SampleSize.parse(text)


def test_faces_of_different_emotions_differ_and_those_of_a_pair_do_not():
    from erv.sample.emotions import FACE_CUES

    person = draw_person(np.random.default_rng(5))
    renderer = FaceRenderer(person, np.random.default_rng(6))

    def face(emotion):
        return renderer.frame(
            {unit: 0.9 for cue in EXPRESSIONS[emotion].face for unit in FACE_CUES[cue]}, Pose()
        )

    shots = {emotion: face(emotion).astype(int) for emotion in EMOTIONS}
    assert shots["anger"].shape == (160, 160, 3)
    for one in EMOTIONS:
        for other in EMOTIONS:
            moved = np.mean(np.abs(shots[one] - shots[other]).max(axis=2) > 40)
            if EXPRESSIONS[one].face == EXPRESSIONS[other].face:
                assert moved == 0
            else:
                assert moved > 0.008, (one, other)


def test_vocal_cues_are_measurable():
    def speak(cues, seed=1):
        samples, _ = synthesize(prosody(cues), Speaker(120.0, 1.0, 0.0), 2.0, np.random.default_rng(seed))
        wave = samples / 32768
        power = np.abs(np.fft.rfft(wave)) ** 2
        hertz = np.fft.rfftfreq(len(wave), 1 / 16000)
        return (
            np.sqrt(np.mean(wave**2)),
            float((power * hertz).sum() / power.sum()),
            np.mean(np.abs(wave) < 0.004),
        )

    neutral, loud, faint, halting = (
        speak(c) for c in ((), ("voice_loud",), ("voice_faint",), ("voice_halting",))
    )
    assert loud[0] > 1.7 * neutral[0] > 1.7 * 1.7 * faint[0]
    assert speak(("voice_harsh",))[1] > 1.15 * neutral[1]
    assert halting[2] > neutral[2]
    assert prosody(("voice_high",), strength=0.0) == Prosody()
