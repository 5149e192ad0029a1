"""A fetched version outside the pipeline: asked about many clips, exported, and imported as external.

The registry's part is in tests/integration/test_published.py.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from erv.errors import ErvError, EvaluationError, RegistryError
from erv.export.export import export
from erv.files import sha256_of, sha256_of_file
from erv.predict.listing import Listing, list_clips
from erv.predict.predict import SCHEMA, predict
from erv.register.external import write_external
from erv.register.fetched import FetchedVersion, fault_of
from erv.register.register import Bundle
from tests.support.tiny_bundle import SERVING, write_bundle, write_clip

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> FetchedVersion:
    """A version as `fetch_version` leaves it."""
    import mlflow

    from erv.register.model_content import model_content

    folder = tmp_path_factory.mktemp("version")
    bundle = folder / "candidate"
    bundle.mkdir()
    write_bundle(bundle)
    (bundle / "metrics.json").write_text(json.dumps({"judges": {"lexical": {}}}))
    (bundle / "card.md").write_text("# policy\n\n## Metrics\n")
    mlflow.pyfunc.save_model(folder / "model", **model_content(bundle, folder / "gathered"))
    model = folder / "model"
    lineage = {"model": "policy", "bundle": "b" * 64, "commit": "c" * 40, "dirty": False}
    (model / "lineage.json").write_text(json.dumps({**lineage, "files": {}}))
    return FetchedVersion("policy", "3", "a" * 64, "b" * 64, model, model / "artifacts/candidate", lineage)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips, of two days")
    (folder / "monday").mkdir()
    write_clip(folder / "monday/b.mp4")
    write_clip(folder / "a.MP4", seed=1)
    write_clip(folder / "muted.mp4", loudness=0.0)
    (folder / "broken.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42" + bytes(200))
    (folder / "list.csv").write_text("clip\n")
    (folder / "._a.mp4").write_bytes(b"by a file manager")
    return folder


@pytest.mark.slow
def test_every_clip_has_a_row_and_what_was_interrupted_goes_on(
    version: FetchedVersion, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("erv.predict.predict.MAX_CLIPS", 2)
    listing = list_clips(clips)
    assert listing.left_out == 2
    asked: list[int] = []

    def interrupted(numbers: Sequence[int]) -> Iterator[Path]:
        if asked:
            raise KeyboardInterrupt
        asked.extend(numbers)
        return listing.files(numbers)

    output, kept = tmp_path / "answers.parquet", tmp_path / "kept"
    with pytest.raises(KeyboardInterrupt):
        predict(version, Listing(listing.clips, 0, interrupted), output, kept)
    assert not output.exists()

    done = predict(version, listing, output, kept)
    assert (done.clips, done.failed, done.kept) == (4, 2, 2)
    table = pq.read_table(output)
    assert table.schema.names == SCHEMA.names
    rows = {row["clip"]: row for row in table.to_pylist()}
    assert list(rows) == ["a.MP4", "broken.mp4", "monday/b.mp4", "muted.mp4"]
    assert rows["monday/b.mp4"]["sha256"] == sha256_of_file(clips / "monday/b.mp4")
    assert isinstance(rows["monday/b.mp4"]["completion"], str)
    assert rows["muted.mp4"]["error"].endswith("found -120 (not_silent)")
    assert rows["muted.mp4"]["completion"] is None
    assert table.schema.metadata[b"erv.version"] == b"3"
    assert table.schema.metadata[b"erv.lineage_sha256"] == b"a" * 64
    assert not list(version.folder.rglob("__pycache__")), "the copy stays as it was registered"

    before = output.read_bytes()
    assert predict(version, listing, output, kept).kept == 4
    assert output.read_bytes() == before
    other = replace(version, record="d" * 64)
    with pytest.raises(EvaluationError, match="policy version 3 failed"):
        # Nothing of another version is taken for its answers.
        predict(replace(other, folder=tmp_path / "gone"), listing, output, kept)


def test_what_can_not_be_asked_about_says_so(tmp_path: Path) -> None:
    with pytest.raises(ErvError, match="no videos below this folder"):
        list_clips(tmp_path)
    with pytest.raises(ErvError, match="gone: neither a folder of videos nor a manifest"):
        list_clips(tmp_path / "gone")


def imported(folder: Path, tmp_path: Path) -> Bundle:
    return write_external(folder, tmp_path / "bundle", verifier=None, serving=SERVING)


def test_an_export_loads_and_comes_back(version: FetchedVersion, tmp_path: Path) -> None:
    from erv.policies import load_policy

    folder = tmp_path / "exported"
    export(version, folder)
    export(version, tmp_path / "again")
    assert sha256_of(tmp_path / "again") == sha256_of(folder)
    assert load_policy(folder, device="cpu").model.config.model_type == "humanomni"
    header, card = (folder / "README.md").read_text().removeprefix("---\n").split("\n---\n", 1)
    assert yaml.safe_load(header)["library_name"] == "transformers"
    assert version.bundle_hash in card
    assert "## Metrics" in card
    with pytest.raises(RegistryError, match="has something in it already; name a new folder"):
        export(version, folder)

    bundle = imported(folder, tmp_path)
    assert bundle.is_external
    assert bundle.verdicts == ()
    assert sha256_of(bundle.folder / "policy") == sha256_of(version.bundle / "policy")
    assert sha256_of(bundle.folder / "verifier") == sha256_of(version.bundle / "verifier")
    assert bundle.json("serving.json") == SERVING
    assert bundle.json("external.json") == {
        "says": {key: version.lineage[key] for key in ("model", "bundle", "commit", "dirty")}
    }
    assert imported(folder, tmp_path).hash == bundle.hash


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("code", "auto_map"),
        ("link", "a link that leads out of the folder"),
        ("arm", "is an arm, whose weights are elsewhere"),
        ("verifier", "has no verifier/; name a verifier's folder with --verifier"),
        ("serving", "frames: Input should be a valid integer, found 'many', so this erv"),
        ("empty", "no policy here"),
    ],
)
def test_a_folder_that_can_not_be_imported_says_why(
    version: FetchedVersion, tmp_path: Path, fault: str, said: str
) -> None:
    folder = tmp_path / "theirs"
    shutil.copytree(version.bundle / "policy", folder)
    shutil.copytree(version.bundle / "verifier", folder / "verifier")
    if fault == "code":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "x.Y"}}))
    elif fault == "link":
        (folder / "notes.txt").symlink_to("/etc/hostname")
    elif fault == "arm":
        (folder / "arm.json").write_text(json.dumps({"folder": "/etc"}))
    elif fault == "verifier":
        shutil.rmtree(folder / "verifier")
    elif fault == "serving":
        (folder / "serving.json").write_text(json.dumps({"frames": "many"}))
    else:
        (folder / "config.json").unlink()
    with pytest.raises(ErvError) as refused:
        imported(folder, tmp_path)
    assert said in str(refused.value)
    assert not (tmp_path / "bundle").exists()


def test_a_copy_with_another_file_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("1")
    files = {"code.py": sha256_of_file(tmp_path / "code.py")}
    (tmp_path / "lineage.json").write_text(json.dumps({"files": files}))
    recorded = sha256_of_file(tmp_path / "lineage.json")
    assert fault_of(tmp_path, recorded) is None
    (tmp_path / "more.py").touch()
    assert fault_of(tmp_path, recorded) == "more.py: added since it was registered"
    (tmp_path / "more.py").unlink()
    (tmp_path / "code.py").write_text("2")
    assert str(fault_of(tmp_path, recorded)).startswith("code.py: changed since it was registered")
    assert fault_of(tmp_path, "0" * 64) == "lineage.json was changed"
