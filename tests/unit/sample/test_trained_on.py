"""The list of clips that the sample's base learned from, as `erv lineage` reads it."""

from __future__ import annotations

from pathlib import Path

from erv.environment import Environment
from erv.files import md5_of_file
from erv.lineage.contents import TRAINED_ON, Contents
from erv.lineage.objects import Objects
from erv.lineage.roles import Base
from erv.pinning import pin
from erv.sample.base_checkpoint import _write_trained_on


def test_the_lineage_reads_what_the_base_says(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    _write_trained_on("reasoning", ["sample_1", "sample_2"], base)
    assert (base / TRAINED_ON).read_text().splitlines()[:2] == [
        "model,dataset,clip_id",
        "policy,reasoning,sample_1",
    ]
    path = tmp_path / "base.lock.json"
    pin("base", str(base), None).save(path)
    contents = Contents(Objects(Environment(tmp_path)), lambda md5, name: path.read_bytes())
    for model in ("policy", "encoder"):
        found = contents.clips(Base(md5_of_file(path), model, "data/sources/base.lock.json"))
        assert found.used == {("reasoning", "sample_1"), ("reasoning", "sample_2")}
