from pathlib import Path

import pytest

from erv.data.upload import upload_sample
from erv.errors import DataError


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


def test_real_data_are_never_overwritten(tmp_path):
    bucket = _Bucket({"s3://raw/dfew/Clip/original/1.mp4": b"real"})
    folders = [tree(tmp_path / "mafw", "cues.parquet"), tree(tmp_path / "dfew", "cues.parquet")]
    with pytest.raises(DataError, match="s3://raw/dfew holds 1 objects that are not of a sample corpus"):
        upload_sample(folders, "s3://raw", bucket)
    assert list(bucket) == ["s3://raw/dfew/Clip/original/1.mp4"]
