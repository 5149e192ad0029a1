"""Clips whose files are spelled a little differently from the lists, with every reader."""

import unicodedata
import zipfile

import pytest

from erv.errors import DataError
from erv.ingest.ingest import ingest
from erv.ingest.readers.by_name import selection_of
from erv.pinning import pin
from erv.settings import IngestSettings
from tests.support import trees

READERS = {
    "mafw": {"reader": "mafw", "set": "single", "listing": "no_caption"},
    "dfew": {"reader": "dfew", "media": "original"},
    "ravdess": {"reader": "ravdess", "channels": ["speech"]},
    "reasoning": {"reader": "reasoning"},
    "table": {"reader": "table", "table": "clips.csv", "columns": {"split": "split"}},
}
MAFW_CLIPS = "data/clips"


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/label_spaces").mkdir(parents=True)
    (tmp_path / "data/label_spaces/table.yaml").write_text("uses: mafw\n")


def read(name, root, **changes):
    settings = IngestSettings(
        **{
            "fold": 1,
            "validation_share": 0.0,
            "expect": "subset",
            "max_excluded_share": 0.5,
            "readers": READERS,
            **changes,
        }
    )
    lock = pin(name, str(root), None, selection=selection_of(settings.readers[name]))
    return ingest(name, lock, None, settings, seed=0)


def write(name, root):
    """A tree of each reader, with its clips in small letters."""
    if name == "mafw":
        trees.write_mafw(root, 0.001)
    elif name == "dfew":
        trees.write_dfew(root, 0.001)
    elif name == "ravdess":
        trees.write_ravdess(root, channels=["01"], actors=[1], silent=False)
    else:
        trees.write_videos(root, ["a", "b"])
        table = "clip,label,split\na.mp4,anger,train\nb.mp4,fear,test\n"
        explained = "names,emotions,reasons\na,anger,He frowns.\nb,fear,She trembles.\n"
        path = root / ("clips.csv" if name == "table" else "EMER.csv")
        path.write_text(table if name == "table" else explained)
    return root


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("suffix", [".MP4", ".Mp4"])
@pytest.mark.parametrize("name", READERS)
def test_a_suffix_in_capitals_is_read_and_counted(tmp_path, name, suffix, zipped):
    root = write(name, tmp_path / "tree")
    plain = read(name, root)
    for path in list(root.rglob("*.mp4")):
        path.rename(path.with_suffix(suffix))
    if zipped:
        (tmp_path / "zipped").mkdir()
        with zipfile.ZipFile(tmp_path / "zipped/set.zip", "w") as archive:
            for path in sorted(root.rglob("*.*")):
                archive.write(path, f"set/{path.relative_to(root)}")
        root = tmp_path / "zipped"
    result = read(name, root)
    assert [(r.clip_id, r.label, r.split, r.sha256) for r in result.rows] == [
        (r.clip_id, r.label, r.split, r.sha256) for r in plain.rows
    ]
    assert result.rows
    assert all(row.uri.endswith(suffix) for row in result.rows)
    assert (len(result.absent), len(result.unlisted)) == (0, len(plain.unlisted))


@pytest.mark.parametrize("name", ["mafw", "dfew"])
def test_one_clip_in_both_spellings_is_refused(tmp_path, name):
    root = write(name, tmp_path / "tree")
    first = min(root.rglob("*.mp4"))
    first.with_suffix(".MP4").write_bytes(b"another")
    with pytest.raises(DataError, match="are the same clip; remove one of them"):
        read(name, root)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("mafw", MAFW_CLIPS),
        ("dfew", "Clip/original"),
        ("ravdess", "Actor_01"),
        ("reasoning", "."),
        ("table", "."),
    ],
)
@pytest.mark.parametrize("suffix", [".AVI", ".m4v", ".mts"])
def test_a_video_of_another_kind_is_counted(tmp_path, name, folder, suffix):
    root = write(name, tmp_path / "tree")
    before = read(name, root).unlisted
    (root / folder / f"extra{suffix}").write_bytes(b"x")
    more = {path.removeprefix("./") for path in read(name, root).unlisted} - set(before)
    assert {path.rpartition("/")[2] for path in more} == {f"extra{suffix}"}


def test_media_that_a_reader_does_not_need_are_skipped_in_any_case():
    settings = IngestSettings(
        fold=1, validation_share=0.0, expect="full", max_excluded_share=0.0, readers=READERS
    )
    dfew = {"reader": "dfew", "media": "avi"}
    other = IngestSettings(**{**settings.model_dump(), "readers": {"dfew": dfew}})
    assert selection_of(other.readers["dfew"]).kind("Clip/original/12.MP4") == "skipped"
    ravdess = selection_of(settings.readers["ravdess"])
    assert ravdess.kind("Actor_01/02-01-01-01-01-01-01.MP4") == "skipped"
    assert ravdess.kind("Actor_01/01-01-01-01-01-01-01.MP4") == "file"


@pytest.mark.parametrize(("listed", "there"), [("NFC", "NFD"), ("NFD", "NFC")])
@pytest.mark.parametrize("name", ["table", "reasoning"])
def test_accents_may_be_composed_or_not(tmp_path, name, listed, there):
    root = write(name, tmp_path / "tree")
    path = root / ("clips.csv" if name == "table" else "EMER.csv")
    text = path.read_text().replace("\na", f"\n{unicodedata.normalize(listed, 'é')}", 1)
    path.write_text(text)
    (root / "a.mp4").rename(root / f"{unicodedata.normalize(there, 'é')}.mp4")
    result = read(name, root)
    assert [row.label for row in result.rows if row.uri.endswith(unicodedata.normalize(there, "é.mp4"))] == [
        "anger"
    ]
    assert result.absent == ()


def test_two_files_that_differ_in_case_alone_do_not_stand_for_a_third(tmp_path):
    root = write("table", tmp_path / "tree")
    (root / "a.mp4").rename(root / "A.mp4")
    (root / "a.MP4").write_bytes(b"another")
    with pytest.raises(DataError, match=r"'a\.mp4' is listed, and 'A\.mp4' and 'a\.MP4' differ from it"):
        read("table", root)


def test_a_clip_listed_in_two_cases_is_refused(tmp_path):
    root = write("table", tmp_path / "tree")
    (root / "clips.csv").write_text("clip,label,split\na.mp4,anger,train\nA.mp4,fear,train\n")
    with pytest.raises(DataError, match=r"'a\.mp4' and 'A\.mp4' differ in upper and lower case or accents"):
        read("table", root)


@pytest.mark.parametrize("name", ["table", "reasoning", "mafw"])
def test_leading_zeros_that_a_spreadsheet_dropped_are_pointed_at(tmp_path, name):
    root = write(name, tmp_path / "tree")
    if name == "table":
        (root / "a.mp4").rename(root / "00007.mp4")
        (root / "clips.csv").write_text("clip,label,split\n7.mp4,anger,train\nb.mp4,fear,test\n")
        message = r"1 listed clips have other leading zeros .*7\.mp4 is listed, 00007\.mp4 is there"
    elif name == "reasoning":
        (root / "video").mkdir()
        (root / "a.mp4").rename(root / "video/00007.mp4")
        (root / "EMER.csv").write_text("names,emotions,reasons\n7,anger,He frowns.\nb,fear,She trembles.\n")
        message = r"video/7\.mp4 is listed, video/00007\.mp4 is there"
    else:
        path = min((root / MAFW_CLIPS).iterdir())
        path.rename(path.with_name(f"{int(path.stem)}.mp4"))
        message = rf"{path.name} is listed, {MAFW_CLIPS}/{int(path.stem)}\.mp4 is there"
    with pytest.raises(DataError, match=message):
        read(name, root)


def test_leading_zeros_of_videos_at_the_top(tmp_path):
    root = write("reasoning", tmp_path / "tree")
    (root / "a.mp4").rename(root / "00007.mp4")
    (root / "EMER.csv").write_text("names,emotions,reasons\n7,anger,He frowns.\nb,fear,She trembles.\n")
    with pytest.raises(DataError, match=r": 7\.mp4 is listed, 00007\.mp4 is there"):
        read("reasoning", root)
