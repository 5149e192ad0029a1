"""Suites per data set, their severities, the verdict, the sentences and the Data Docs."""

import dataclasses
import json
import re

import pytest

from erv.errors import DataError
from erv.validate.probing import Probe
from erv.validate.validate import missed, require_success, validate
from tests.support.verdicts import GONE, GOOD, SETTINGS, judge, rows_of

COMPLETION = "<think>The brows are low.</think>\n<answer>anger</answer>"


def failed(verdict):
    return {name for name, item in verdict["expectations"].items() if not item["success"]}


@pytest.fixture
def mafw():
    return rows_of("mafw", 55)


def test_a_sound_set_meets_everything(mafw):
    verdict = judge(mafw)
    assert failed(verdict) == set()
    assert verdict["success"] is True
    assert verdict["clips"] == 55
    assert verdict["fold"] == 1
    assert verdict["splits"] == {"train": 33, "validation": 11, "test": 11}
    assert verdict["media"] == {"unreadable": 0, "faults": {}, "without_sound": 0, "seconds": 110.0}
    assert verdict["expectations"]["length_plausible"] == {
        "severity": "tolerated",
        "expected": "0.5 to 60 s",
        "success": True,
        "failed": 0,
        "clips": [],
    }
    require_success(verdict)


def test_clips_that_are_read_otherwise_than_by_the_released_code_are_named(mafw):
    late = dataclasses.replace(GOOD, sound_after=1.0, antiphase=True)
    slow = dataclasses.replace(GOOD, variable_rate=True, pixel_ratio=1.5, sound_after=0.02)
    verdict = judge(mafw, {"00003": late, "00005": slow, "00007": dataclasses.replace(late, fault="broken")})
    assert verdict["media"]["adjusted"] == {
        "with frames chosen by time (variable rate)": {"clips": 1, "first": ["00005"]},
        "with one channel taken (antiphase)": {"clips": 1, "first": ["00003"]},
        "with pixels that are not square": {"clips": 1, "first": ["00005"]},
        "with sound that does not start with the pictures": {"clips": 1, "first": ["00003"]},
    }
    assert list(verdict["media"]["adjusted"]) == sorted(verdict["media"]["adjusted"])


def test_equal_manifests_give_equal_verdicts_without_paths(mafw):
    first, second = (json.dumps(judge(mafw, {"00003": GONE})) for _ in range(2))
    assert first == second
    assert "someone" not in first


@pytest.mark.parametrize(
    ("rows", "fails"),
    [
        # Official folds need clips to train on and to test with.
        (rows_of("dfew", splits=("train",)), {"splits_filled"}),
        (rows_of("dfew", splits=("test",)), {"splits_filled"}),
        # RAVDESS has test clips alone, a table of one's own may have any one split.
        (rows_of("ravdess", splits=("test",), fold=0), set()),
        (rows_of("mafw", splits=("train",), fold=0), set()),
        # Explanations are trained on, each has its completion, and their labels are MAFW's.
        (rows_of("reasoning", splits=("train",), fold=0, completion=COMPLETION), set()),
        (rows_of("reasoning", splits=("test",), fold=0, completion=COMPLETION), {"splits_filled"}),
        (rows_of("mafw_compound", 86), set()),
    ],
)
def test_each_data_set_has_its_own_suite(rows, fails):
    assert failed(judge(rows)) == fails


def test_a_split_that_lacks_is_named():
    with pytest.raises(DataError, match=r"splits_filled \(expected clips in train and test; lacking: test\)"):
        require_success(judge(rows_of("dfew", splits=("train",))))


CRITICAL = {
    "clip_id_unique": {"clip_id": "00020"},
    "clip_id_given": {"clip_id": " "},
    "dataset_is_this_one": {"dataset": "dfew"},
    "split_known": {"split": "dev"},
    "label_in_space": {"label": "joy"},
    "sha256_well_formed": {"sha256": "F" * 64},
    "media_known": {"media": "sound"},
    "uri_given": {"uri": ""},
    "label_from_given": {"label_from": ""},
    "split_from_given": {"split_from": " "},
    "caption_from_given": {"caption": "A man smiles.", "caption_from": None},
}


def test_one_clip_that_misses_a_critical_expectation_fails_the_set(mafw):
    for index, change in enumerate(CRITICAL.values()):
        mafw[index] = dataclasses.replace(mafw[index], **change)
    mafw[30] = dataclasses.replace(mafw[30], fold=2)
    rows = [mafw[20], *mafw[:20], *mafw[21:]]
    verdict = judge(rows)
    assert failed(verdict) == {*CRITICAL, "one_fold"}
    assert verdict["success"] is False
    with pytest.raises(DataError, match=r"^12 expectations failed over 55 clips: ") as caught:
        require_success(verdict)
    for index, name in enumerate(CRITICAL):
        item = verdict["expectations"][name]
        assert item["severity"] == "critical"
        assert item["clips"] == (["00020"] * 2 if name == "clip_id_unique" else [mafw[index].clip_id])
        count = "1 clip misses" if item["failed"] == 1 else f"{item['failed']} clips miss"
        assert f"{name} (expected {item['expected']}; {count} it: " in str(caught.value)


def test_completions_of_a_set_of_explanations():
    rows = rows_of("reasoning", splits=("train",), fold=0, completion=COMPLETION)
    rows[3] = dataclasses.replace(rows[3], completion=None)
    rows[4] = dataclasses.replace(rows[4], completion="sad")
    rows[5] = dataclasses.replace(rows[5], completion="<think></think><answer>sad</answer>")
    verdict = judge(rows)
    assert failed(verdict) == {"completion_given", "completion_well_formed"}
    assert verdict["expectations"]["completion_given"]["clips"] == ["00003"]
    assert verdict["expectations"]["completion_well_formed"]["clips"] == ["00004", "00005"]


TOLERATED = {
    "media_decodable": {"fault": "no frame can be decoded"},
    "length_plausible": {"seconds": 0.2},
    "fps_plausible": {"fps": 2.0},
    "size_plausible": {"height": 16},
    "sound_present": {"has_audio": False, "loudness_db": None},
    "not_silent": {"loudness_db": -120.0},
    "not_black": {"brightness": 2.0},
    "frames_present": {"frames": 0},
}


@pytest.mark.parametrize("each", [8, 12])
def test_bad_media_are_tolerated_up_to_the_share(each):
    rows = rows_of("mafw", 100)
    probes, bad = {}, {}
    for index, (name, change) in enumerate(TOLERATED.items()):
        bad[name] = [row.clip_id for row in rows[index * each : (index + 1) * each]]
        probes |= dict.fromkeys(bad[name], dataclasses.replace(GOOD, **change))
    verdict = judge(rows, probes)
    assert failed(verdict) == (set(TOLERATED) if each == 12 else set())
    assert verdict["success"] is (each == 8)
    for name, clips in bad.items():
        item = verdict["expectations"][name]
        assert (item["severity"], item["failed"], item["clips"]) == ("tolerated", each, clips)
    if each == 12:
        with pytest.raises(
            DataError, match=r"not_black \(expected .* of 255; 12 clips miss it: 00072, .* and 7 more\)"
        ):
            require_success(verdict)


def test_too_long_is_not_plausible_either(mafw):
    long = dataclasses.replace(GOOD, seconds=90.0)
    assert failed(judge(mafw, {row.clip_id: long for row in mafw[:6]})) == {"length_plausible"}


def test_the_clips_of_mafw_that_have_no_sound_do_not_fail_it():
    rows = rows_of("mafw", 2000)
    mute = dataclasses.replace(GOOD, has_audio=False, loudness_db=None)
    settings = SETTINGS.model_copy(update={"max_failed_share": 0.02})
    verdict = judge(rows, {row.clip_id: mute for row in rows[:21]}, settings)
    assert verdict["success"] is True
    assert verdict["media"]["without_sound"] == 21
    assert verdict["expectations"]["sound_present"]["failed"] == 21
    assert len(verdict["expectations"]["sound_present"]["clips"]) == 21


def test_frame_folders_have_neither_sound_nor_length_and_that_is_a_warning():
    rows = rows_of("dfew", media="frames")
    folder = Probe(frames=16, width=224, height=224, brightness=80.0)
    verdict = judge(rows, {row.clip_id: folder for row in rows})
    assert failed(verdict) == {"media_with_sound"}
    assert verdict["success"] is True
    assert "sound_present" not in verdict["expectations"]
    (text,) = missed(verdict, warnings=True)
    assert text.startswith(
        "media_with_sound (expected videos: folders of frames have no sound; 50 clips miss it"
    )
    assert missed(verdict, warnings=False) == []


def test_the_same_content_in_two_splits_fails_and_names_the_pairs(mafw):
    mafw[4] = dataclasses.replace(mafw[4], sha256=mafw[0].sha256)
    verdict = judge(mafw)
    item = verdict["expectations"]["content_in_one_split"]
    assert (item["severity"], item["failed"]) == ("critical", 2)
    assert item["pairs"] == ["00000 (train) = 00004 (test)"]
    with pytest.raises(
        DataError, match=re.escape("2 clips miss it: 00000 (train) = 00004 (test)): take one")
    ):
        require_success(verdict)
    accepted = judge(mafw, settings=SETTINGS.model_copy(update={"duplicates": "warn"}))
    assert accepted["success"] is True
    assert accepted["expectations"]["content_in_one_split"]["severity"] == "warning"
    require_success(accepted)


def test_warnings_do_not_fail(mafw):
    mafw[1] = dataclasses.replace(mafw[1], sha256=mafw[0].sha256)
    mafw[2] = dataclasses.replace(mafw[2], caption=" ", caption_from="x:1")
    absent = {"contempt", "helplessness", "disappointment"}
    rows = [row for row in mafw if row.label not in absent]
    verdict = judge(rows)
    assert failed(verdict) == {"content_unique", "caption_not_blank", "labels_all_present"}
    assert verdict["expectations"]["labels_all_present"]["lacking"] == sorted(absent)
    require_success(verdict)
    assert len(missed(verdict, warnings=True)) == 3


def test_manifest_and_checks_belong_together(mafw):
    checks = {"dataset": "mafw", "counts": {"clips": 54.0}, "checks": []}
    with pytest.raises(DataError, match="has 55 clips, but the checks of ingest are for 54 of mafw"):
        validate("mafw", mafw, {row.clip_id: GOOD for row in mafw}, SETTINGS, checks)


def test_data_docs_are_one_page_that_needs_nothing_else(mafw, tmp_path):
    mafw[3] = dataclasses.replace(mafw[3], label="<script>alert(1)</script>")
    page = tmp_path / "docs" / "mafw.html"
    judge(mafw, {"00005": GONE}, docs=page)
    html = page.read_text()
    assert "not valid" in html
    assert "1 × container can&#39;t be read: nothing there" in html
    assert "label_in_space" in html
    assert "00003" in html
    assert "values must belong to this set" in html, "Great Expectations' own rendering"
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    for leak in ("http://", "https://", "someone", str(tmp_path), "src=", "@import"):
        assert leak not in html
    assert not re.search(r"20\d\d-?\d\d-?\d\dT", html), "no time of the run"
