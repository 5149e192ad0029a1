import io
import random
import stat
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from erv.errors import DataError
from erv.pinning import pin
from erv.sources import Lock, Selection, archives, fetch_all
from erv.sources.archives import Archive, check_zip_bytes
from tests.support.zips import encrypted, overlapping, patched, zip_of

CLIPS = {f"clips/{n:05d}.mp4": bytes([n]) * (n + 1) for n in range(40)}


def _source(tmp_path, **files):
    root = tmp_path / "raw"
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path = path.with_suffix(".zip") if isinstance(content, bytes) else path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def _refusal(tmp_path, content, **more):
    root = _source(tmp_path, data__clips=content)
    with pytest.raises(DataError) as refusal:
        pin("mafw", str(root), None, **more)
    message = str(refusal.value)
    assert message.startswith(f"{root}/data/clips.zip: ")
    assert "\n" not in message
    return message


def test_members_are_listed_where_unpacking_would_put_them(tmp_path):
    root = tmp_path / "raw"
    (root / "data").mkdir(parents=True)
    (root / "data" / "clips.zip").write_bytes(zip_of(CLIPS))
    (root / "flat.ZIP").write_bytes(zip_of({"a.csv": b"a", "sub/b.csv": b"b"}))
    lock = pin("mafw", str(root), None)
    assert [file.path for file in lock.files] == [
        "data/clips.zip",
        *CLIPS_BELOW,
        "flat.ZIP",
        "flat/a.csv",
        "flat/sub/b.csv",
    ]
    clip = lock.find("data/clips/00003.mp4")
    assert (clip.archive, clip.member, clip.bytes) == ("data/clips.zip", "clips/00003.mp4", 4)
    assert lock.uri_of(clip.path) == f"{root}/data/clips.zip!/clips/00003.mp4"
    assert lock.read(None, "flat/sub/b.csv") == b"b"
    path = tmp_path / "mafw.lock.json"
    lock.save(path)
    assert Lock.load(path) == lock


CLIPS_BELOW = [f"data/{name}" for name in CLIPS]


def test_members_come_in_order_from_one_open_zip(tmp_path, monkeypatch):
    root, cache = _source(tmp_path, data__clips=zip_of(CLIPS)), tmp_path / "cache"
    lock = pin("mafw", str(root), None)
    opened = []
    monkeypatch.setattr(Archive, "__init__", _noting(Archive.__init__, opened))
    rows = [_Row(lock, path) for path in reversed(CLIPS_BELOW)]
    found = [path.read_bytes() for path in fetch_all(rows, lock, None, cache=cache)]
    assert found == [CLIPS[path.removeprefix("data/")] for path in reversed(CLIPS_BELOW)]
    assert len(opened) == 1
    assert [path.read_bytes() for path in fetch_all(rows, lock, None, cache=cache)] == found
    assert len(opened) == 1  # everything is in the cache


def _noting(method, calls):
    def noted(self, *arguments):
        calls.append(arguments)
        method(self, *arguments)

    return noted


class _Row:
    def __init__(self, lock, path):
        self.uri, self.sha256 = lock.uri_of(path), lock.find(path).sha256


def test_a_zip_that_has_changed_since_it_was_pinned(tmp_path):
    root = _source(tmp_path, clips=zip_of({"clips/1.mp4": b"one", "clips/2.mp4": b"two"}))
    lock = pin("dfew", str(root), None)
    (root / "clips.zip").write_bytes(zip_of({"clips/1.mp4": b"eins"}))
    with pytest.raises(DataError, match=r"clips\.zip!/clips/1\.mp4: content has changed since it was pinned"):
        lock.fetch(None, "clips/1.mp4", tmp_path / "cache")
    with pytest.raises(DataError, match=r"clips\.zip has no member 'clips/2\.mp4'; pin the source again"):
        lock.fetch(None, "clips/2.mp4", tmp_path / "cache")
    (root / "clips.zip").unlink()
    with pytest.raises(DataError, match=r"clips\.zip: file not found"):
        lock.fetch(None, "clips/2.mp4", tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_what_file_managers_add_is_skipped_and_counted(tmp_path):
    junk = {"__MACOSX/clips/._00001.mp4": b"x", "clips/.DS_Store": b"yy", "clips/Thumbs.db": b"zzz"}
    root = _source(tmp_path, data__clips=zip_of({**junk, "clips/00001.mp4": b"clip"}))
    (root / "._notes.txt").write_bytes(b"zzzz")
    lock = pin("mafw", str(root), None)
    assert [file.path for file in lock.files] == ["data/clips.zip", "data/clips/00001.mp4"]
    assert lock.skipped == {"files": 4, "bytes": 10}


def test_a_zip_that_the_reader_never_needs_is_not_opened(tmp_path):
    root = _source(tmp_path, frames=b"not a zip", clips=zip_of({"clips/1.mp4": b"clip"}))
    lock = pin("dfew", str(root), None, selection=Selection(skip=(r"^frames\.zip$",)))
    assert [file.path for file in lock.files] == ["clips.zip", "clips/1.mp4"]
    assert lock.skipped == {"files": 1, "bytes": 9}


def test_zips_in_zips_stay_closed(tmp_path):
    root = _source(tmp_path, outer=zip_of({"data/inner.zip": b"whatever"}))
    assert [file.path for file in pin("x", str(root), None).files] == ["data/inner.zip", "outer.zip"]


@pytest.mark.parametrize(
    "name",
    [
        "../x.mp4",
        "clips/../../x.mp4",
        "/etc/passwd",
        "C:/x.mp4",
        "c:x.mp4",
        "clips\\x.mp4",
        "a//b",
        "./a",
        "a/..",
    ],
)
def test_names_that_lead_out(tmp_path, name):
    message = _refusal(tmp_path, zip_of({"clips/1.mp4": b"", name: b"x"}))
    assert f"member {name!r} has a name that leads out of the zip or is not a plain path" in message


def test_a_folder_that_leads_out(tmp_path):
    assert "leads out of the zip" in _refusal(tmp_path, zip_of({"clips/1.mp4": b"", "../up/": b""}))


def test_a_name_cut_by_nul(tmp_path):
    content = zip_of({"clips/1.mp4#../../x": b""}).replace(b"#", b"\0")
    assert r"member 'clips/1.mp4\x00../../x' has a name with control characters" in _refusal(
        tmp_path, content
    )


def test_symbolic_links(tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        link = zipfile.ZipInfo("clips/1.mp4")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    assert "member 'clips/1.mp4' is a symbolic link" in _refusal(tmp_path, out.getvalue())


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_occurs_twice(tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("1.mp4", b"one")
        archive.writestr("1.mp4", b"other")
    assert "member '1.mp4' occurs twice" in _refusal(tmp_path, out.getvalue())


def test_members_that_unpack_to_the_same_path(tmp_path):
    root = _source(tmp_path, data__clips=zip_of({"1.mp4": b"a"}), data__more=zip_of({"clips/1.mp4": b"b"}))
    with pytest.raises(DataError) as refusal:
        pin("mafw", str(root), None)
    assert str(refusal.value) == (
        f"source mafw: {root}/data/clips.zip!/1.mp4 and {root}/data/more.zip!/clips/1.mp4 are both"
        " 'data/clips/1.mp4' once zips are unpacked; keep one of them in the source"
    )
    (root / "data" / "more.zip").unlink()
    (root / "data" / "clips").mkdir()
    (root / "data" / "clips" / "1.mp4").write_bytes(b"a")
    with pytest.raises(DataError, match=r"data/clips/1\.mp4 and .*clips\.zip!/1\.mp4 are both"):
        pin("mafw", str(root), None)


def test_a_file_where_another_needs_a_folder(tmp_path):
    root = _source(tmp_path, a=zip_of({"top/x": b"a", "top/x/y.mp4": b"b"}))
    with pytest.raises(DataError, match=r"a\.zip!/top/x is a file and .*a\.zip!/top/x/y\.mp4 lies below it"):
        pin("mafw", str(root), None)


def test_encrypted_members_need_the_password(tmp_path, monkeypatch):
    content = encrypted("clips/1.mp4", b"secret clip", b"from the form")
    message = _refusal(tmp_path, content)
    assert (
        "1 members, 'clips/1.mp4' first, are encrypted; unpack it with the password you were given" in message
    )
    assert "ERV_ZIP_PASSWORD" in message
    monkeypatch.setenv("ERV_ZIP_PASSWORD", "guessed")
    message = _refusal(tmp_path, content)
    assert "ERV_ZIP_PASSWORD" in message
    assert "guessed" not in message
    monkeypatch.setenv("ERV_ZIP_PASSWORD", "from the form")
    root = tmp_path / "raw"
    lock = pin("mafw", str(root), None)
    assert lock.fetch(None, "data/clips/1.mp4", tmp_path / "cache").read_bytes() == b"secret clip"


def test_aes_is_not_read(tmp_path):
    content = patched(zip_of({"clips/1.mp4": b"x"}), {6: b"\1\0", 8: b"\x63\0"}, {8: b"\1\0", 10: b"\x63\0"})
    assert "1 members, 'clips/1.mp4' first, are encrypted with AES; unpack it with 7-Zip" in _refusal(
        tmp_path, content
    )


@pytest.mark.parametrize(("method", "name"), [(9, "deflate64"), (14, "lzma"), (77, "method 77")])
def test_compression_that_is_not_read(tmp_path, method, name):
    field = method.to_bytes(2, "little")
    content = patched(zip_of({"clips/1.mp4": b"x"}), {8: field}, {10: field})
    assert f"member 'clips/1.mp4' uses a compression that erv doesn't read ({name})" in _refusal(
        tmp_path, content
    )


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_compression_that_is_read(tmp_path, kind):
    content = random.Random(0).randbytes(300_000) + bytes(3_000_000)
    root = _source(tmp_path, clips=zip_of({"1.mp4": content}, kind))
    lock = pin("mafw", str(root), None)
    assert lock.fetch(None, "clips/1.mp4", tmp_path / "cache").read_bytes() == content


def test_split_zips(tmp_path):
    content = zip_of({"clips/1.mp4": b"x"})
    end = content.rindex(b"PK\5\6")
    last = content[: end + 4] + b"\1\0\1\0" + content[end + 8 :]
    assert "the last part of a zip that was split into several files; join them" in _refusal(tmp_path, last)
    for name in ("clips.z01", "clips.zip.001"):
        root = tmp_path / name
        root.mkdir()
        (root / name).write_bytes(b"x")
        with pytest.raises(DataError, match=rf"{name}: a part of a zip that was split into several files"):
            pin("mafw", str(root), None)


def test_a_zip_that_is_cut_short(tmp_path):
    content = zip_of(CLIPS)
    message = _refusal(tmp_path, content[: len(content) // 2])
    assert "not a readable zip (File is not a zip file); it may be cut short" in message
    assert "not a readable zip" in _refusal(tmp_path, b"")


def test_a_member_whose_checksum_does_not_fit(tmp_path):
    content = zip_of({"clips/1.mp4": b"frames of a clip"}, zipfile.ZIP_STORED).replace(b"frames", b"FRAMES")
    message = _refusal(tmp_path, content)
    assert "member 'clips/1.mp4': can't be unpacked (Bad CRC-32" in message


def test_headers_that_lie_about_the_size(tmp_path):
    content = zip_of({"clips/1.mp4": b"x" * 1000})
    for size in (10, 5000):
        field = {22: size.to_bytes(4, "little")}
        lying = patched(content, field, {24: size.to_bytes(4, "little")})
        assert "member 'clips/1.mp4': can't be unpacked" in _refusal(tmp_path, lying)


def test_members_that_share_bytes(tmp_path):
    assert "member 'one.mp4' overlaps the data after it" in _refusal(tmp_path, overlapping(b"x" * 100))


def test_bombs(tmp_path, monkeypatch):
    bomb = zip_of({f"clips/{n}.mp4": bytes(20 << 20) for n in range(4)})
    assert "unpacks to 84 MB, more than 100 times its size, as a zip bomb does" in _refusal(tmp_path, bomb)
    with pytest.raises(DataError, match="as a zip bomb does"):
        check_zip_bytes(bomb, "s3://b/annotation.xlsx")
    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 100)
    message = _refusal(tmp_path, zip_of({"clips/1.mp4": b"x" * 101}))
    assert "member 'clips/1.mp4' unpacks to 0.0 GB, more than 0.0 GB" in message


def test_too_many_members(tmp_path, monkeypatch):
    monkeypatch.setattr("erv.sources.zip_directory.MAX_MEMBERS", 39)
    assert "lists 40 members" in _refusal(tmp_path, zip_of(CLIPS))
    monkeypatch.undo()
    monkeypatch.setattr(archives, "MAX_MEMBERS", 39)  # what the end record says is not believed
    assert "has 40 members, more than 39" in _refusal(tmp_path, zip_of(CLIPS))


def test_large_zips_have_a_second_end_record(tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 10)
    content = zip_of(CLIPS)
    assert b"PK\6\6" in content
    monkeypatch.undo()
    root = _source(tmp_path, data__clips=content)
    assert len(pin("mafw", str(root), None).files) == 41
    monkeypatch.setattr("erv.sources.zip_directory.MAX_MEMBERS", 39)
    assert "lists 40 members" in _refusal(tmp_path, content)


def test_an_empty_zip_is_said_to_be_empty(tmp_path, caplog):
    root = _source(tmp_path, clips=zip_of({}))
    assert [file.path for file in pin("x", str(root), None).files] == ["clips.zip"]
    assert f"{root}/clips.zip: an empty zip" in caplog.text


@pytest.mark.parametrize("field", [8, 12])  # number of members, size of the directory
def test_members_do_not_get_lost_with_the_directory(tmp_path, field):
    content = zip_of(CLIPS)
    at = content.rindex(b"PK\5\6") + field
    message = _refusal(tmp_path, content[:at] + bytes(4) + content[at + 4 :])
    assert "not a readable zip (it lists " in message or "not a readable zip (Bad magic number" in message


def test_a_member_without_a_name(tmp_path):
    assert "member '' has no name" in _refusal(tmp_path, zip_of({"": b"x", "1.mp4": b""}))


def test_workbooks_are_checked_before_they_are_read():
    book = zip_of({"[Content_Types].xml": b"<x/>", "xl/workbook.xml": b"<y/>"})
    check_zip_bytes(book, "s3://b/annotation.xlsx")
    for content in (book[:-30], b"video_name,label\n", b""):
        with pytest.raises(DataError, match=r"^s3://b/annotation\.xlsx: not a readable zip"):
            check_zip_bytes(content, "s3://b/annotation.xlsx")


def test_many_threads_read_one_zip(tmp_path):
    members = {f"{n}.mp4": random.Random(n).randbytes(50_000) for n in range(100)}
    path = tmp_path / "clips.zip"
    path.write_bytes(zip_of(members))
    with Archive(path, "clips.zip", "clips.zip") as archive, ThreadPoolExecutor(8) as pool:
        names = list(members) * 3
        found = list(pool.map(lambda name: b"".join(archive.stream(name)), names))
    assert found == [members[name] for name in names]


def test_frames_in_zips_are_folders(tmp_path):
    frames = {f"clip_224x224/{n:05d}/{i}.jpg": b"%d %d" % (n, i) for n in range(3) for i in range(4)}
    other = {"clip_224x224/cover.png": b"cover", "clip_224x224/list.txt": b"list"}
    root = _source(tmp_path, Clip__frames=zip_of({**frames, **other}))
    selection = Selection(frames=r"/\d{5}$", aggregate=True)
    lock = pin("dfew", str(root), None, selection=selection)
    folder = "Clip/clip_224x224/00001"
    assert [file.path for file in lock.files if file.frames] == [
        f"Clip/clip_224x224/{n:05d}" for n in range(3)
    ]
    assert lock.uri_of(folder) == f"{root}/Clip/frames.zip!/clip_224x224/00001/"
    assert lock.skipped == {"files": 1, "bytes": 5}
    (found,) = fetch_all([_Row(lock, folder)], lock, None, cache=tmp_path / "cache")
    assert {path.name: path.read_bytes() for path in found.iterdir()} == {
        f"{i}.jpg": b"1 %d" % i for i in range(4)
    }
    # The same folder, unpacked, has the same digest.
    plain = tmp_path / "plain"
    with zipfile.ZipFile(root / "Clip" / "frames.zip") as archive:
        archive.extractall(plain / "Clip")
    unpacked = pin("dfew", str(plain), None, selection=selection)
    assert unpacked.find(folder).sha256 == lock.find(folder).sha256
    assert unpacked.find(folder).frames == lock.find(folder).frames == 4


def test_frames_at_the_top_of_a_zip(tmp_path):
    root = _source(tmp_path, frames__00001=zip_of({"1.jpg": b"a", "2.jpg": b"b"}))
    lock = pin("dfew", str(root), None, selection=Selection(frames=r"\d{5}$", aggregate=True))
    path = tmp_path / "dfew.lock.json"
    lock.save(path)
    lock = Lock.load(path)
    assert lock.uri_of("frames/00001") == f"{root}/frames/00001.zip!/"
    assert sorted(p.name for p in lock.fetch(None, "frames/00001", tmp_path / "cache").iterdir()) == [
        "1.jpg",
        "2.jpg",
    ]


def test_pinning_again_does_not_read_the_members_of_an_unchanged_zip(tmp_path, monkeypatch):
    root = _source(tmp_path, clips=zip_of(CLIPS))
    lock = pin("mafw", str(root), None)
    monkeypatch.setattr(Archive, "stream", lambda self, name: pytest.fail("a member was read"))
    assert pin("mafw", str(root), None, previous=lock) == lock


def test_broken_zips_are_refused_or_read_as_they_are(tmp_path):
    """Whatever bytes change, there is a lock or one sentence."""
    content = zip_of({name: data * 50 for name, data in list(CLIPS.items())[:6]})
    root = tmp_path / "raw"
    root.mkdir()
    refused = []
    for seed in range(600):
        draw = random.Random(seed)
        data = bytearray(content)
        for _ in range(draw.randint(1, 4)):
            at = draw.choice([draw.randrange(len(data)), content.rindex(b"PK\1\2") + draw.randrange(46)])
            data[at % len(data)] = draw.randrange(256)
        if draw.random() < 0.2:
            del data[draw.randrange(len(data)) :]
        (root / "clips.zip").write_bytes(data)
        try:
            pin("mafw", str(root), None)
        except DataError as error:
            refused.append(str(error))
    assert len(refused) > 200
    assert not [sentence for sentence in refused if "\n" in sentence]
