"""Files and folders that are whole or not there, and their hashes."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys

import pytest

from erv import files
from erv.errors import DataError
from erv.files import (
    model_folder,
    scratch_folder,
    sha256_of,
    sha256_of_file,
    sha256_of_text,
    temporary_name,
    whole_file,
    whole_folder,
    write_text,
)


class Stop(Exception):
    pass


def write_into(context, name, error=None):
    """Writes a file below the folder that a context gives, then raises the error."""
    with context as folder:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
        if error:
            raise error


def tree(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("options", [{}, {"shared": True}, {"durable": True}])
def test_a_file_appears_when_it_is_complete(tmp_path, options):
    path = tmp_path / "new" / "a.txt"
    with whole_file(path, **options) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
        assert temporary.parent == path.parent
        assert temporary.name.startswith(".a.txt.")
    assert path.read_text() == "whole"
    with pytest.raises(Stop):
        write_into(whole_file(path, **options), "", Stop())
    assert path.read_text() == "whole"
    assert tree(tmp_path) == ["new", "new/a.txt"]


def test_only_what_is_asked_to_be_durable_waits_for_the_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    write_text("plain", tmp_path / "plain")
    write_text("durable\n", tmp_path / "durable", durable=True)
    assert synced == [8]


def test_writers_of_a_shared_file_do_not_meet(tmp_path):
    path = tmp_path / "a.txt"
    with whole_file(path, shared=True) as one, whole_file(path, shared=True) as two:
        one.write_text("one")
        two.write_text("two")
    assert path.read_text() == "one"
    assert tree(tmp_path) == ["a.txt"]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "new" / "folder"
    for name in ("one", "two"):
        with whole_folder(path) as folder:
            (folder / "below").mkdir()
            (folder / "below" / name).write_text(name)
    assert tree(path) == ["below", f"below/{name}"]
    with pytest.raises(Stop):
        write_into(whole_folder(path), "three", Stop())
    assert tree(tmp_path) == ["new", "new/folder", "new/folder/below", "new/folder/below/two"]


def test_a_link_gives_way_and_what_it_points_to_stays(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a").write_text("")
    (tmp_path / "folder").symlink_to("elsewhere")
    with whole_folder(tmp_path / "folder") as folder:
        (folder / "b").write_text("")
    assert tree(tmp_path) == ["elsewhere", "elsewhere/a", "folder", "folder/b"]


KILLED = """
import os, signal, sys
from pathlib import Path
from erv import files
path, when = Path(sys.argv[1]), sys.argv[2]
def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
with files.whole_folder(path) as folder:
    (folder / "new 1").write_text("")
    if when == "while it is written":
        die()
    (folder / "new 2").write_text("")
    def half(target, *args, **kwargs):
        next(Path(target).iterdir()).unlink()
        die()
    files.shutil.rmtree = half
"""


@pytest.mark.parametrize(
    ("when", "whole"),
    [("while it is written", ["old 1", "old 2"]), ("while the old one is deleted", ["new 1", "new 2"])],
)
def test_a_killed_process_leaves_the_old_folder_or_the_new_one(tmp_path, when, whole):
    path = tmp_path / "folder"
    with whole_folder(path) as folder:
        for name in ("old 1", "old 2"):
            (folder / name).write_text("")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path), when], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert tree(path) == whole
    assert len(list(tmp_path.iterdir())) == 2
    with whole_folder(path) as folder:
        assert tree(folder) == []
        (folder / "a").write_text("")
    assert tree(tmp_path) == ["folder", "folder/a"]


def test_a_scratch_folder_goes_unless_it_was_moved(tmp_path):
    with pytest.raises(Stop):
        write_into(scratch_folder(tmp_path / "a", shared=True), "x", Stop())
    assert tree(tmp_path) == []
    with scratch_folder(tmp_path / "a") as folder:
        folder.rename(tmp_path / "b")
    assert tree(tmp_path) == ["b"]


def test_a_model_folder_has_no_pickles(tmp_path):
    path = tmp_path / "policy"
    write_into(model_folder(path), "model.safetensors")
    with pytest.raises(DataError) as refusal:
        write_into(model_folder(path), "adapter/training_args.bin")
    assert str(refusal.value) == (
        f"{path}: adapter/training_args.bin runs code when it is loaded; save as safetensors"
    )
    assert tree(tmp_path) == ["policy", "policy/model.safetensors"]


def test_what_is_removed_may_be_anything_or_nothing(tmp_path):
    (tmp_path / "folder" / "below").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    for name in ("link", "file", "nothing"):
        files.remove(tmp_path / name)
    assert tree(tmp_path) == ["folder", "folder/below"]
    files.remove(tmp_path / "folder")
    assert tree(tmp_path) == []


def test_a_hash_of_a_large_file_counts_its_chunks(tmp_path):
    content = os.urandom((1 << 20) + 5)
    (tmp_path / "a").write_bytes(content)
    sizes = []
    found = sha256_of_file(tmp_path / "a", sizes.append)
    assert found == hashlib.sha256(content).hexdigest() == sha256_of(tmp_path / "a")
    assert sum(sizes) == len(content)
    assert max(sizes) <= 1 << 20


def test_the_hash_of_a_folder_follows_names_and_contents(tmp_path):
    folder = tmp_path / "a"
    (folder / "below").mkdir(parents=True)
    (folder / "x").write_text("1")
    (folder / "below" / "y").write_text("2")
    lines = "".join(f"{name}={sha256_of_text(text)}\n" for name, text in (("below/y", "2"), ("x", "1")))
    assert sha256_of(folder) == hashlib.sha256(lines.encode()).hexdigest()
    shutil.copytree(folder, tmp_path / "b")
    (tmp_path / "b" / "__pycache__").mkdir()
    (tmp_path / "b" / "__pycache__" / "z.pyc").write_text("")
    assert sha256_of(tmp_path / "b") == sha256_of(folder)
    (tmp_path / "b" / "x").rename(tmp_path / "b" / "z")
    assert sha256_of(tmp_path / "b") != sha256_of(folder)
    with pytest.raises(DataError, match="nowhere: not found"):
        sha256_of(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError):
        sha256_of_file(tmp_path / "nowhere")


def test_temporary_names_identify_their_owner(tmp_path):
    names = {temporary_name(tmp_path / "a").name for _ in range(10)}
    assert len(names) == 10
    assert all(f"-{os.getpid()}-" in name and name.startswith(".a.") for name in names)
