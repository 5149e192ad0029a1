"""The published counts, written out a second time: from them the trees of other tests are made."""

import pytest

from erv.ingest.published import published_counts
from erv.settings.ingest import DfewReader, MafwReader, RavdessReader


def test_mafw_single():
    found = published_counts(MafwReader(reader="mafw", set="single", listing="no_caption"))
    assert found.classes == {
        "sadness": 1470,
        "anger": 1390,
        "happiness": 1242,
        "neutral": 1138,
        "surprise": 1072,
        "anxiety": 916,
        "disgust": 639,
        "fear": 625,
        "helplessness": 262,
        "contempt": 236,
        "disappointment": 182,
    }
    pairs = [(7333, 1839), (7335, 1837), (7339, 1833), (7340, 1832), (7341, 1831)]
    assert found.folds == {n: {"train": a, "test": b} for n, (a, b) in enumerate(pairs, start=1)}
    assert (found.clips, found.total, found.tested_once) == (9172, 10045, True)
    assert found.sizes == {"rows of annotation.xlsx": 10045, "rows of single-set.xlsx": 9172}


@pytest.mark.parametrize(
    ("kind", "listing", "clips", "classes"),
    [
        ("single", "with_caption", 8034, 10),
        ("compound", "no_caption", 8996, 43),
        ("compound", "with_caption", 7858, 42),
    ],
)
def test_the_other_lists_of_mafw(kind, listing, clips, classes):
    found = published_counts(MafwReader(reader="mafw", set=kind, listing=listing))
    assert (found.clips, found.class_count, found.total) == (clips, classes, 10045)
    assert found.tested_once == (kind == "single")
    assert found.sizes.get("rows of multi-set.xlsx") == (4058 if kind == "compound" else None)


def test_dfew():
    found = published_counts(DfewReader(reader="dfew", media="original"))
    assert found.classes == {
        "happy": 2445,
        "sad": 1894,
        "neutral": 2669,
        "angry": 2173,
        "surprise": 1469,
        "disgust": 145,
        "fear": 902,
    }
    pairs = [(9356, 2341), (9356, 2341), (9357, 2340), (9358, 2339), (9361, 2336)]
    assert found.folds == {n: {"train": a, "test": b} for n, (a, b) in enumerate(pairs, start=1)}
    assert (found.clips, found.total, found.tested_once) == (11697, 16372, True)


def test_ravdess():
    speech = published_counts(RavdessReader(reader="ravdess", channels=("speech",)))
    assert speech.classes == {"neutral": 288} | dict.fromkeys(
        ["happy", "sad", "angry", "fearful", "disgust", "surprised"], 192
    )
    both = published_counts(RavdessReader(reader="ravdess", channels=("speech", "song")))
    assert (speech.clips, both.clips) == (1440, 1440 + 1012)
    assert (both.classes["neutral"], both.classes["disgust"]) == (376 + 188, 192)
