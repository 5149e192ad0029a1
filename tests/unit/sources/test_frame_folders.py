import hashlib
import time
from types import SimpleNamespace

import pytest

from erv.errors import DataError, StorageError
from erv.pinning import pin
from erv.sources import Lock, SourceFile, fetch_all
from erv.sources.frame_folders import aggregate
from erv.sources.selection import Selection, Skipped, sort_out

FRAMES = Selection(frames=r"clip_224x224/\d{5}$", aggregate=True)


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "dfew"
    for clip in range(3):
        for number in range(1, 5):
            path = root / f"Clip/clip_224x224/{clip:05d}/{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{clip} {number}")
    (root / "Clip/clip_224x224/00000/notes.txt").write_text("not an image")
    (root / "Clip/clip_224x224_16f/00000").mkdir(parents=True)
    (root / "Clip/clip_224x224_16f/00000/1.jpg").write_text("of another layout")
    return root


def test_a_folder_is_one_entry(tree, tmp_path):
    lock = pin("dfew", str(tree), None, selection=FRAMES)
    folder = "Clip/clip_224x224/00001"
    assert [file.path for file in lock.files] == [
        "Clip/clip_224x224/00000",
        "Clip/clip_224x224/00000/notes.txt",
        folder,
        "Clip/clip_224x224/00002",
    ]
    lines = "".join(
        f"{number}.jpg {hashlib.sha256(f'1 {number}'.encode()).hexdigest()}\n" for number in range(1, 5)
    )
    expected = SourceFile(folder, 12, hashlib.sha256(lines.encode()).hexdigest(), None, frames=4)
    assert lock.find(folder) == expected
    assert lock.skipped == {"files": 1, "bytes": 17}
    assert lock.uri_of(folder) == f"{tree}/{folder}/"
    path = tmp_path / "dfew.lock.json"
    lock.save(path)
    assert Lock.load(path) == lock


def test_a_local_folder_is_used_where_it_lies_and_verified(tree):
    lock = pin("dfew", str(tree), None, selection=FRAMES)
    folder = "Clip/clip_224x224/00000"
    assert lock.fetch(None, folder) == tree / folder
    (tree / folder / "notes.txt").write_text("changed, and no frame")
    lock.fetch(None, folder)
    with pytest.raises(DataError, match="is a folder of frames; expected a file"):
        lock.read(None, folder)
    for change in ("changed", None):
        (tree / folder / "2.jpg").unlink()
        if change:
            (tree / folder / "2.jpg").write_text(change)
        with pytest.raises(
            DataError, match=r"00000/: content has changed since it was pinned \(its [34] images"
        ):
            lock.fetch(None, folder)
    for path in (tree / folder).iterdir():
        path.unlink()
    (tree / folder).rmdir()
    with pytest.raises(DataError, match=r"00000/: folder not found; restore it"):
        lock.fetch(None, folder)


def test_folders_come_in_order(tree):
    lock = pin("dfew", str(tree), None, selection=FRAMES)
    rows = [file for file in reversed(lock.files) if file.frames]
    items = [_Row(lock.uri_of(file.path), file.sha256) for file in rows]
    assert list(fetch_all(items, lock, None)) == [tree / file.path for file in rows]


class _Row:
    def __init__(self, uri, sha256):
        self.uri, self.sha256 = uri, sha256


class _Bucket:
    """Eight folders of five images, of which the fourth folder's can't be read."""

    def list(self, uri):
        return [SimpleNamespace(uri=f"{uri}{n}.jpg", size=1, version_id=None, etag="x") for n in range(5)]

    def download(self, uri, path, version_id=None, sha256=None, *, size=None, on_bytes=None):
        if "/3/" in uri:
            raise StorageError(f"{uri}: the key is expired")
        for _ in range(3):
            time.sleep(0.02)
            on_bytes(1)
        path.write_bytes(b"x")
        return path


def test_a_folder_that_cannot_be_read_says_why(tmp_path):
    """While it fails, the folders before it are still being read."""
    sha256 = aggregate({f"{n}.jpg": hashlib.sha256(b"x").hexdigest() for n in range(5)}, "")
    lock = Lock("dfew", "s3://b/dfew", tuple(SourceFile(str(n), 5, sha256, frames=5) for n in range(8)))
    rows = [_Row(lock.uri_of(file.path), sha256) for file in lock.files]
    with pytest.raises(StorageError, match=r"^s3://b/dfew/3/0\.jpg: the key is expired$"):
        list(fetch_all(rows, lock, _Bucket(), cache=tmp_path / "cache"))
    whole = tmp_path / "cache" / sha256[:2] / sha256
    assert sorted(path.name for path in whole.iterdir()) == [f"{n}.jpg" for n in range(5)]
    assert list(whole.parent.iterdir()) == [whole]


def test_names_with_line_breaks_are_refused(tree):
    (tree / "Clip/clip_224x224/00000" / "5\n.jpg").write_text("")
    with pytest.raises(DataError, match=r"00000: the name '5\\n\.jpg' holds a line break; rename the file"):
        pin("dfew", str(tree), None, selection=FRAMES)


def test_a_tree_may_hold_folders_of_frames(tree, tmp_path):
    lock = pin("dfew", str(tree), None, selection=FRAMES)
    lock.fetch_tree(None, "Clip", tmp_path / "out")
    assert (tmp_path / "out/clip_224x224/00002/4.jpg").read_text() == "2 4"


@pytest.mark.parametrize(
    ("path", "selection", "kind"),
    [
        ("a/1.jpg", Selection(), "file"),
        ("a/1.jpg", Selection(aggregate=True), "skipped"),
        ("a/1.JPEG", Selection(frames="^a$", aggregate=True), "frame"),
        ("a/b/1.png", Selection(frames="^a$", aggregate=True), "skipped"),
        ("1.bmp", Selection(frames="", aggregate=True), "skipped"),
        ("a/1.jpg", Selection(skip=("^a/",), frames="^a$", aggregate=True), "skipped"),
        # A folder counts as a whole: single frames can't be left out of it.
        ("a/1.jpg", Selection(skip=(r"1\.jpg$",), frames="^a$", aggregate=True), "frame"),
        ("a/1.jpg", Selection(skip=(r"1\.jpg$",)), "skipped"),
        ("a/x.csv", Selection(frames="^a$", aggregate=True), "file"),
        ("a/.DS_Store", Selection(), "skipped"),
        ("a/__MACOSX/x.csv", Selection(), "skipped"),
        ("a/._1.jpg", Selection(frames="^a$", aggregate=True), "skipped"),
        ("a/THUMBS.DB", Selection(), "skipped"),
        ("a/._x/y.csv", Selection(), "file"),
    ],
)
def test_what_becomes_of_a_file(path, selection, kind):
    skipped = Skipped()
    found = sort_out([SourceFile(path, 7, "0" * 64)], selection, skipped)
    assert selection.kind(path) == kind
    assert (bool(found.files), bool(found.folders), skipped.bytes) == {
        "file": (True, False, 0),
        "frame": (False, True, 0),
        "skipped": (False, False, 7),
    }[kind]
