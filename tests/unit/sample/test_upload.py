from pathlib import Path

import pytest

from erv.errors import DataError
from erv.sample.upload import upload_sample


class _Bucket(dict):
    """Objects by uri."""

    def list(self, uri):
        return [type("Object", (), {"uri": name}) for name in sorted(self) if name.startswith(uri + "/")]

    def mirror_tree(self, folder: Path, uri):
        for name in [item.uri for item in self.list(uri)]:
            del self[name]
        files = [path for path in folder.rglob("*") if path.is_file()]
        self.update({f"{uri}/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in files})
        return {"stored": len(files)}


def tree(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return root


def test_an_earlier_sample_is_replaced(tmp_path):
    bucket, said = _Bucket(), []
    upload_sample(
        [tree(tmp_path / "one/mafw", "cues.parquet", "data/1.mp4", "data/2.mp4")], "s3://raw", bucket
    )
    upload_sample(
        [tree(tmp_path / "two/mafw", "cues.parquet", "data/3.mp4")], "s3://raw", bucket, said.append
    )
    assert sorted(bucket) == ["s3://raw/mafw/cues.parquet", "s3://raw/mafw/data/3.mp4"]
    assert said == ["s3://raw/mafw: 2 stored"]


TREES = {
    "mafw": ("cues.parquet", "data/clips/00001.mp4"),
    "dfew": ("cues.parquet", "Clip/original/1.mp4"),
    "reasoning": ("cues.parquet", "EMER.csv"),
    "judge": ("SAMPLE.txt", "texts.csv"),
    "base": ("SAMPLE.txt", "policy/config.json"),
}


@pytest.mark.parametrize("name", TREES)
def test_what_a_user_put_there_is_never_overwritten(tmp_path, name):
    own = f"s3://raw/{name}/{TREES[name][1]}"
    bucket = _Bucket({own: b"real"})
    folders = [tree(tmp_path / one, *names) for one, names in TREES.items()]
    with pytest.raises(DataError, match=f"s3://raw/{name} holds 1 objects that are not of a sample corpus"):
        upload_sample(folders, "s3://raw", bucket)
    assert bucket == {own: b"real"}


def test_the_whole_sample_is_uploaded_over_an_earlier_one(tmp_path):
    bucket = _Bucket()
    folders = [tree(tmp_path / one, *names) for one, names in TREES.items()]
    for _ in range(2):
        upload_sample(folders, "s3://raw", bucket)
    assert len(bucket) == 10
