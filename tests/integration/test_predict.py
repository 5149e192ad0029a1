"""`erv predict` with a real version that answers in its own process: what goes wrong while it does."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from erv.environment import Environment
from erv.errors import EvaluationError, StorageError
from erv.manifest import SCHEMA
from erv.predict.listing import Listing, list_clips
from erv.predict.predict import Predicted, _read, predict
from erv.register.fetched import FetchedVersion
from erv.sources import LOCKS, Lock, SourceFile
from erv.storage.store import open_store
from tests.integration.scratch import wait_until
from tests.support.tiny_bundle import SERVING, write_bundle, write_clip
from tests.unit.predict.test_dataset import row, write

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> FetchedVersion:
    """A version as it is on this machine once it is fetched."""
    import mlflow

    from erv.register.model_content import model_content

    folder = tmp_path_factory.mktemp("version")
    (folder / "candidate").mkdir()
    bundle = write_bundle(folder / "candidate")
    mlflow.pyfunc.save_model(folder / "model", **model_content(bundle, folder / "gathered"))
    return FetchedVersion("tiny", "1", "a" * 64, "b" * 64, folder / "model", bundle, {})


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    (tmp_path / "clips").mkdir()
    write_clip(tmp_path / "clips/a #1%20+ü.mp4")
    shutil.copy(tmp_path / "clips/a #1%20+ü.mp4", tmp_path / "clips/b.mp4")
    return tmp_path / "clips"


def rows(output: Path) -> dict[str, dict[str, object]]:
    return {item["clip"]: item for item in pq.read_table(output).to_pylist()}


def test_what_can_not_be_answered_has_a_row_and_the_rest_is_answered(
    version: FetchedVersion, clips: Path, tmp_path: Path
) -> None:
    (clips / "empty.mp4").touch()
    (clips / "out.mp4").symlink_to(tmp_path / "gone.mp4")
    Path(os.fsdecode(os.fsencode(clips) + b"/\xff.mp4")).write_bytes(b"b")
    output, kept = tmp_path / "answers.parquet", tmp_path / "kept"
    assert predict(version, list_clips(clips), output, kept) == Predicted(5, 3, 0)
    said = rows(output)
    assert list(said) == [r"\xff.mp4", "a #1%20+ü.mp4", "b.mp4", "empty.mp4", "out.mp4"]
    assert said[r"\xff.mp4"]["error"] == "its path is not UTF-8; rename it"
    assert said["empty.mp4"]["error"] == "the file is empty"
    assert said["empty.mp4"]["sha256"] == hashlib.sha256(b"").hexdigest()
    assert said["out.mp4"]["sha256"] is None
    assert isinstance(said["b.mp4"]["completion"], str)
    assert said["b.mp4"]["completion"] == said["a #1%20+ü.mp4"]["completion"]
    before = output.read_bytes()
    assert predict(version, list_clips(clips), output, kept).kept == 5
    assert output.read_bytes() == before


@pytest.mark.slow
def test_a_clip_that_is_gone_for_a_while_is_answered_by_the_next_run(
    version: FetchedVersion, clips: Path, tmp_path: Path
) -> None:
    """Its error was kept as the answer to this content, for every later run."""
    output, kept = tmp_path / "answers.parquet", tmp_path / "kept"
    listing = list_clips(clips)
    (clips / "b.mp4").rename(tmp_path / "away")
    assert predict(version, listing, output, kept) == Predicted(2, 1, 0)
    assert "can't be read now (No such file or directory)" in str(rows(output)["b.mp4"]["error"])
    (tmp_path / "away").rename(clips / "b.mp4")
    assert predict(version, list_clips(clips), output, kept) == Predicted(2, 0, 0)
    # Another content under the same name is another question.
    write_clip(clips / "b.mp4", loudness=0.0)
    assert predict(version, list_clips(clips), output, kept) == Predicted(2, 1, 0)
    assert str(rows(output)["b.mp4"]["error"]).endswith("found -120 (not_silent)")


def test_a_clip_that_changes_while_it_is_asked_about(
    version: FetchedVersion, clips: Path, tmp_path: Path
) -> None:
    """The row had the hash of one content and the answer about another."""
    listing, output = list_clips(clips), tmp_path / "answers.parquet"
    log = tmp_path / "kept/log"  # which appears when the version is started, with all clips read

    def change() -> None:
        wait_until(log.exists, 60)
        write_clip(clips / "b.mp4", seed=5)

    changing = threading.Thread(target=change)
    changing.start()
    assert predict(version, listing, output, tmp_path / "kept") == Predicted(2, 1, 0)
    changing.join()
    assert (
        rows(output)["b.mp4"]["error"] == "was changed while it was asked about; run the same command again"
    )


def test_data_set_and_subtitle_reach_the_question(clips: Path, tmp_path: Path) -> None:
    """Through the process of the version, MLflow's signature and the model."""
    import mlflow

    from erv.register.model_content import model_content

    (tmp_path / "candidate").mkdir()
    bundle = write_bundle(tmp_path / "candidate")
    processor = bundle / "policy/processor_config.json"
    asked = {"instruction": "One of {labels}?\nThe person says: {subtitle}"}
    processor.write_text(json.dumps({**json.loads(processor.read_text()), **asked}))
    (bundle / "serving.json").write_text(json.dumps({**SERVING, "datasets": {"dfew": None, "mafw": None}}))
    mlflow.pyfunc.save_model(tmp_path / "model", **model_content(bundle, tmp_path / "gathered"))
    version = FetchedVersion("tiny", "1", "a" * 64, "b" * 64, tmp_path / "model", bundle, {})
    listing, output = list_clips(clips), tmp_path / "answers.parquet"
    assert predict(version, listing, output, tmp_path / "kept") == Predicted(2, 2, 0)
    assert "name one of them in the field dataset" in str(rows(output)["b.mp4"]["error"])
    first, second = listing.clips
    known = (
        replace(first, dataset="dfew", subtitle="You came!"),
        replace(second, dataset="mafw", subtitle="<video>"),
    )
    assert predict(version, replace(listing, clips=known), output, tmp_path / "kept") == Predicted(2, 1, 0)
    good, bad = rows(output).values()
    assert isinstance(good["completion"], str)
    assert "the subtitle has a placeholder" in str(bad["error"])


@pytest.mark.slow
def test_damaged_pieces_are_answered_again(version: FetchedVersion, clips: Path, tmp_path: Path) -> None:
    output, kept = tmp_path / "answers.parquet", tmp_path / "kept"
    predict(version, list_clips(clips), output, kept)
    before = output.read_bytes()
    (piece,) = kept.glob("*.parquet")
    content, whole = piece.read_bytes(), pq.read_table(piece)
    names = whole.column("clip").to_pylist()
    assert _read(piece, names) is not None
    pq.write_table(whole.slice(1), piece)
    assert _read(piece, names) is None
    pq.write_table(pa.table({name: [[1], [2]] for name in whole.schema.names}), piece)
    assert _read(piece, names) is None
    piece.write_bytes(content[:-100])  # as it is when the machine stopped
    assert predict(version, list_clips(clips), output, kept).kept == 0
    assert output.read_bytes() == before


def test_two_commands_for_one_output_don_t_mix(version: FetchedVersion, clips: Path, tmp_path: Path) -> None:
    """They removed each other's pieces and log."""
    output, kept = tmp_path / "answers.parquet", tmp_path / "kept"
    with (
        FileLock(tmp_path / "kept.lock"),
        pytest.raises(EvaluationError, match=r"another `erv predict` is writing it; wait for it, or name"),
    ):
        predict(version, list_clips(clips), output, kept)
    assert not output.exists()


@pytest.fixture
def stored(stack: Environment, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Listing:
    """A manifest of the clips in S3, of which one is deleted."""
    for name, value in stack.variables().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    store = open_store(stack)
    base = f"s3://{stack.raw_bucket}/predict +#%20ü"
    names = sorted(path.name for path in clips.iterdir())
    files, listed = [], []
    for name in names:
        store.upload(clips / name, f"{base}/{name}")
        content = (clips / name).read_bytes()
        digest = hashlib.sha256(content).hexdigest() if name != "b.mp4" else "0" * 64
        files.append(SourceFile(name, len(content), digest))
        listed.append(replace(row(f"{base}/{name}", name), sha256=digest))
    listed.append(replace(row(f"{base}/gone.mp4", "gone.mp4"), sha256="1" * 64))
    files.append(SourceFile("gone.mp4", 1, "1" * 64))
    Lock("mafw", base, tuple(files)).save(LOCKS / "mafw.lock.json")
    pq.write_table(pa.Table.from_pylist([asdict(item) for item in listed], schema=SCHEMA), "mafw.parquet")
    return list_clips(write(listed))


def test_an_object_that_is_gone_or_another_costs_its_row_only(
    version: FetchedVersion, stored: Listing, tmp_path: Path
) -> None:
    """It ended the whole command."""
    output = tmp_path / "answers.parquet"
    assert predict(version, stored, output, tmp_path / "kept") == Predicted(3, 2, 0)
    good, changed, gone = rows(output).values()
    assert isinstance(good["completion"], str)
    assert "content has changed" in str(changed["error"])
    assert "gone.mp4: no such object at" in str(gone["error"])


def test_a_store_that_is_gone_ends_the_command(
    stored: Listing, version: FetchedVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise every clip would wait for it in vain."""
    monkeypatch.setenv("ERV_S3_SECRET_KEY", "wrong")
    listing = list_clips(Path("mafw.parquet"))
    with pytest.raises(StorageError, match="refuses the key"):
        predict(version, listing, tmp_path / "answers.parquet", tmp_path / "kept")
