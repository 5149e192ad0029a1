"""Trees with all published counts, of bytes that nobody decodes."""

import shutil

import pytest

from erv.errors import DataError
from erv.ingest.ingest import ingest
from erv.ingest.readers.by_name import selection_of
from erv.pinning import pin
from erv.settings import IngestSettings
from tests.support import trees

READERS = {
    "mafw": {"reader": "mafw", "set": "single", "listing": "no_caption"},
    "mafw_compound": {"reader": "mafw", "set": "compound", "listing": "no_caption"},
    "dfew": {"reader": "dfew", "media": "original"},
    "ravdess": {"reader": "ravdess", "channels": ["speech", "song"]},
}


def settings(listing="no_caption", expect="full"):
    readers = {name: {**reader} for name, reader in READERS.items()}
    for name in ("mafw", "mafw_compound"):
        readers[name]["listing"] = listing
    return IngestSettings(
        fold=5, validation_share=0.1, expect=expect, max_excluded_share=0.0, readers=readers
    )


def read(lock, name, **changes):
    return ingest(name, lock, None, settings(**changes), seed=0)


def locked(root, name):
    return pin(name, str(root), None, selection=selection_of(settings().readers[name]))


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    root = tmp_path_factory.mktemp("full")
    trees.full_mafw(root)
    return root


@pytest.fixture(scope="module")
def mafw(full):
    return locked(full, "mafw")


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "listing", "clips", "unlisted"),
    [
        ("mafw", "no_caption", 9_172, 873),
        pytest.param("mafw", "with_caption", 8_034, 2_011, marks=pytest.mark.slow),
        pytest.param("mafw_compound", "no_caption", 8_996, 1_049, marks=pytest.mark.slow),
        pytest.param("mafw_compound", "with_caption", 7_858, 2_187, marks=pytest.mark.slow),
    ],
)
def test_all_of_mafw(mafw, name, listing, clips, unlisted):
    result = read(mafw, name, listing=listing)
    assert [check for check in result.checks if not check.success] == []
    assert (len(result.rows), len(result.unlisted)) == (clips, unlisted)
    assert result.warnings() == []
    names = {check.name for check in result.checks}
    assert {
        "sheet_labels",
        "published_clips",
        "published_classes",
        "published_sheets",
        "one_test_fold",
    } <= names


@pytest.mark.slow
def test_all_of_dfew(tmp_path):
    trees.full_dfew(tmp_path)
    result = read(locked(tmp_path, "dfew"), "dfew")
    assert [check for check in result.checks if not check.success] == []
    assert (len(result.rows), len(result.unlisted)) == (11_697, 4_675)
    assert sum(row.split == "test" for row in result.rows) == 2_336


def test_all_of_ravdess(tmp_path):
    trees.write_ravdess(tmp_path)
    result = read(locked(tmp_path, "ravdess"), "ravdess")
    assert [check for check in result.checks if not check.success] == []
    assert len(result.rows) == 1_440 + 1_012


@pytest.fixture
def part(full, tmp_path):
    """The lists of MAFW with one clip."""
    root = tmp_path / "mafw"
    shutil.copytree(full, root, ignore=shutil.ignore_patterns("clips", "Labels"))
    (root / "data/clips").mkdir()
    (root / "data/clips/00019.mp4").write_bytes(b"x")
    return root


def test_exchanged_folds_of_a_full_set_are_reported(part):
    for listing in ("no_caption", "with_caption"):
        folder = part / "Train & Test Set/single" / listing
        for old, new in (("set_2", "x"), ("set_4", "set_2"), ("x", "set_4")):
            (folder / old).rename(folder / new)
    with pytest.raises(DataError) as caught:
        read(locked(part, "mafw"), "mafw")
    message = str(caught.value)
    assert "fold 2: train 7340, test 1832; fold 4: train 7335, test 1837" in message
    assert "the folders of 2 and 4 may be exchanged" in message


def test_a_part_of_the_clips_is_full_of_warnings_and_no_error(part):
    lock = locked(part, "mafw")
    result = read(lock, "mafw", expect="subset")
    assert [row.clip_id for row in result.rows] == ["00019"]
    assert result.counts()["absent"] == 9_171
    absent = next(check for check in result.checks if check.name == "listed_but_absent")
    assert "9171 of 9172 listed clips are not in the source: data/clips/" in absent.found
    assert len(absent.clips) == 100
    with pytest.raises(DataError, match=r"listed_but_absent: 9171 of 9172 .*\n.*published_total: .*10045"):
        read(lock, "mafw", expect="full")
    assert result.folds[1] == {"test": {"sadness": 1}}
    assert result.folds[5] == {"train": {"sadness": 1}}


def test_a_fold_that_is_missing_is_an_error_of_a_full_set_alone(part):
    shutil.rmtree(part / "Train & Test Set/single/no_caption/set_3")
    lock = locked(part, "mafw")
    assert "five_folds: no lists of fold 3" in "\n".join(read(lock, "mafw", expect="subset").warnings())
    with pytest.raises(DataError, match="five_folds: no lists of fold 3; expected the lists of folds 1 to 5"):
        read(lock, "mafw", expect="full")


def test_exchanged_folds_of_a_subset_are_reported_too(part):
    for listing in ("no_caption", "with_caption"):
        folder = part / "Train & Test Set/single" / listing
        for old, new in (("set_2", "x"), ("set_4", "set_2"), ("x", "set_4")):
            (folder / old).rename(folder / new)
    warnings = "\n".join(read(locked(part, "mafw"), "mafw", expect="subset").warnings())
    assert "fold 2: train 7340, test 1832; fold 4: train 7335, test 1837" in warnings
    assert "the folders of 2 and 4 may be exchanged" in warnings
    assert "a subset: the published counts of total differ" in warnings
